//! Names of Java's methods, from what the JVM calls them. Pure; the bytes are hostile.

use tracer_common::managed::{
    FunctionEvent, NAME_BYTES,
    hotspot::{CLASS_BYTES, SOURCE_BYTES},
};

/// Bytes at the end of a room that a name does not fill.
const SPARE: usize = 4;
/// What a class without a name of its source is said to be from, as Java itself says it.
const NO_SOURCE: &str = "Unknown Source";

/// The name of a method with its class, and the name of its source.
#[must_use]
pub fn name_and_source(event: &FunctionEvent) -> [String; 2] {
    let class = class(&text(event.file_text.characters, &event.file[..CLASS_BYTES]));
    let method = text(event.name_text.characters, &event.name[..NAME_BYTES]);
    let source = &event.file[CLASS_BYTES..CLASS_BYTES + SOURCE_BYTES];
    let end = source.iter().position(|byte| *byte == 0).unwrap_or(source.len());
    let source = String::from_utf8_lossy(&source[..end]);
    [format!("{class}.{method}"), if source.is_empty() { NO_SOURCE.to_owned() } else { source.into_owned() }]
}

/// A name of so many bytes, of which the last ones were read.
fn text(bytes: u32, room: &[u8]) -> String {
    let most = room.len() - SPARE;
    let read = (bytes as usize).min(most);
    let text = String::from_utf8_lossy(&room[..read]);
    if bytes as usize > most { format!("…{text}") } else { text.into_owned() }
}

/// A class as programs write it. Of classes that the JVM makes while it runs the name has a number or an address, which are others in each run.
fn class(name: &str) -> String {
    const LAMBDA: &str = "$$Lambda";
    let name = name.find("/0x").map_or(name, |at| &name[..at]);
    let name = name.split_once('+').map_or(name, |(name, _)| name);
    let end = name.find(LAMBDA).map_or(name.len(), |at| at + LAMBDA.len());
    name[..end].replace('/', ".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_common::managed::{FILE_BYTES, LINES_BYTES, Text};

    fn event(class: &str, method: &str, source: &str) -> FunctionEvent {
        let held = |text: &str| Text { characters: text.len() as u32, width: 1 };
        let mut event = FunctionEvent {
            number: 7,
            lines_format: tracer_common::managed::hotspot::LINES,
            first_line: 0,
            code_units: 4,
            lines_bytes: 0,
            tgid: 1,
            reserved: 0,
            name_text: held(method),
            file_text: held(class),
            name: [0; NAME_BYTES],
            file: [0; FILE_BYTES],
            lines: [0; LINES_BYTES],
        };
        let put = |room: &mut [u8], text: &str| {
            let last = &text.as_bytes()[text.len().saturating_sub(room.len() - SPARE)..];
            room[..last.len()].copy_from_slice(last);
        };
        put(&mut event.name, method);
        put(&mut event.file[..CLASS_BYTES], class);
        put(&mut event.file[CLASS_BYTES..], source);
        event
    }

    #[test]
    fn methods_are_called_as_programs_call_them() {
        for (class, method, source, expected) in [
            ("com/acme/Session$Reader", "readSession", "Session.java", ["com.acme.Session$Reader.readSession", "Session.java"]),
            ("Main", "<init>", "", ["Main.<init>", "Unknown Source"]),
            ("Main$$Lambda$14+0x0000000800c03218", "run", "", ["Main$$Lambda.run", "Unknown Source"]),
            ("Main$$Lambda/0x00007f", "run", "Main.java", ["Main$$Lambda.run", "Main.java"]),
            (
                "java/lang/invoke/LambdaForm$MH+0x0800",
                "invoke",
                "LambdaForm$MH",
                ["java.lang.invoke.LambdaForm$MH.invoke", "LambdaForm$MH"],
            ),
            ("Großhändler", "läuft", "G.kt", ["Großhändler.läuft", "G.kt"]),
        ] {
            assert_eq!(name_and_source(&event(class, method, source)), expected);
        }
    }

    #[test]
    fn long_names_keep_their_end_and_wrong_lengths_read_nothing_else() {
        let long = name_and_source(&event(&format!("{}/Class", "p".repeat(400)), &"m".repeat(300), &"s".repeat(90)));
        assert!(long[0].starts_with('…') && long[0].contains("p.Class.…m"), "{long:?}");
        assert!(long[1].len() <= SOURCE_BYTES);
        let mut hostile = event("A", "b", "C.java");
        hostile.file_text.characters = u32::MAX;
        hostile.name_text.characters = u32::MAX;
        assert!(name_and_source(&hostile)[0].len() < 2 * (CLASS_BYTES + NAME_BYTES));
    }
}
