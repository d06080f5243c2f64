//! What differs between builds of CPython, as numbers: the kernel half reads all of them by the same code.

/// Builds of CPython that there is room for.
pub const PYTHONS: u32 = 64;

/// A frame and a code object are read in one piece each, which is shorter than this.
pub const PIECE_BYTES: usize = 256;

/// How frames tell where one call of the evaluation loop begins.
pub mod entry {
    /// Each frame has its own call.
    pub const EACH: u32 = 0;
    /// A byte of the frame for which the loop was called is not 0.
    pub const FLAG: u32 = 1;
    /// Behind that frame follows one of the loop's own, which a byte tells: it is at least [`super::Python::entry_value`].
    pub const OWNER: u32 = 2;
}

/// A build of CPython. Offsets are in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Python {
    /// Where `_PyRuntime` is: added to the address at which the first byte of the file would be mapped as its code is.
    pub runtime: u64,
    /// In it, the first interpreter.
    pub first_interpreter: u32,
    /// In an interpreter, the next one.
    pub next_interpreter: u32,
    /// In an interpreter, its first thread.
    pub first_thread: u32,
    /// In a thread, the next one.
    pub next_thread: u32,
    /// In a thread, its `pthread_t`: where its thread-local storage is.
    pub thread_id: u32,
    /// In a thread, the innermost frame, or where that stands.
    pub thread_frame: u32,
    /// In what [`Python::thread_frame`] points to, the innermost frame; [`crate::layout::ABSENT`] where that is itself the frame.
    pub frame_in: u32,
    /// Bytes of a frame that are read.
    pub frame_bytes: u32,
    /// In a frame, the one that called it.
    pub frame_previous: u32,
    /// In a frame, its code object.
    pub frame_code: u32,
    /// Low bits of that pointer that are marks.
    pub code_marks: u32,
    /// In a frame, where it is in its code: a pointer if [`Python::code_first`] is known, else a number of 32 bits.
    pub frame_place: u32,
    /// An [`entry`].
    pub entry: u32,
    /// In a frame, the byte by which entries are told.
    pub frame_entry: u32,
    /// See [`entry::OWNER`].
    pub entry_value: u32,
    /// Bytes of a code object that are read.
    pub code_bytes: u32,
    /// In a code object, its first instruction; [`crate::layout::ABSENT`] if it has none inside.
    pub code_first: u32,
    /// In a code object, a word that changes with the length of its code: the number of units, or a pointer to them.
    pub code_size: u32,
    /// In a code object, its first line.
    pub code_first_line: u32,
    /// In a code object, its name.
    pub code_name: u32,
    /// In a code object, the path of its file.
    pub code_file: u32,
    /// In a code object, the table of its lines.
    pub code_lines: u32,
    /// In a text, whether it is ASCII: the bit in the 32 bits at [`Python::text_state`].
    pub text_ascii: u32,
    /// In a text, the lowest of three bits, in the same word, that say how many bytes a character has.
    pub text_kind: u32,
    /// In a text, the word with its state.
    pub text_state: u32,
    /// In a text, its length in characters.
    pub text_length: u32,
    /// In a text that is ASCII, its characters.
    pub text_data_ascii: u32,
    /// The same in one that is not.
    pub text_data: u32,
    /// In bytes, their number.
    pub bytes_length: u32,
    /// In bytes, the first.
    pub bytes_data: u32,
    /// Which table of lines its code has: minor version of the first Python with it.
    pub lines: u32,
    /// Nothing.
    pub reserved: u32,
}
crate::assert_size!(Python, 8 + 4 * 32);
crate::plain_data!(Python);
