//! The accuracy table filled in: what `tests/cells.txt` expects, against the lines that the tests printed. Pure.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};

/// Begins a test's line that fills a cell in: row, column, "ok" or "FAIL".
const FILLED: &str = "CELL ";

/// Cells as the tests filled them in: row and column to whether it was right. A cell that was filled twice counts as it was last.
pub type Filled = BTreeMap<(String, String), bool>;

/// Takes note of a test's line.
pub fn note(line: &str, filled: &mut Filled) {
    // The first line of a test stands behind its name.
    let Some(at) = line.find(FILLED) else { return };
    let mut words = line[at + FILLED.len()..].split_whitespace();
    if let (Some(row), Some(column), Some(how)) = (words.next(), words.next(), words.next()) {
        filled.insert((row.to_owned(), column.to_owned()), how == "ok");
    }
}

/// Which rows a column needs.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Need {
    All,
    Short,
    Perhaps,
    Impossible(String),
}

/// A column that is expected of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Expected {
    machine: String,
    column: String,
    need: Need,
}

/// The file `cells.txt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cells {
    /// All rows, in order.
    pub rows: Vec<String>,
    /// Those that emulated machines run in the short form.
    pub short: BTreeSet<String>,
    columns: Vec<Expected>,
}

/// Reads `cells.txt`.
pub fn parse(text: &str) -> Result<Cells> {
    let list = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("cells: no line {name:?}"))?;
        anyhow::Ok(line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    };
    let (rows, short) = (list("rows ")?, list("short ")?);
    ensure!(short.iter().all(|row| rows.contains(row)), "cells: the short form has a row that is none");
    Ok(Cells { rows, short: short.into_iter().collect(), columns: columns(text)? })
}

fn columns(text: &str) -> Result<Vec<Expected>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !["#", "rows ", "short "].iter().any(|word| line.starts_with(word)));
    lines
        .map(|line| {
            let mut words = line.splitn(3, char::is_whitespace).map(str::trim);
            let (machine, rest) = (words.next(), words.collect::<Vec<_>>().join(" "));
            let (column, need) = rest.trim().split_once(char::is_whitespace).with_context(|| format!("cells: {line:?}"))?;
            let need = match need.trim() {
                "all" => Need::All,
                "short" => Need::Short,
                "perhaps" => Need::Perhaps,
                other => match other.strip_prefix("impossible: ") {
                    Some(reason) => Need::Impossible(reason.to_owned()),
                    None => bail!("cells: {line:?} has no known need"),
                },
            };
            Ok(Expected { machine: machine.unwrap_or_default().to_owned(), column: column.to_owned(), need })
        })
        .collect()
}

/// The rows that somebody asked for by name, separated by commas; one that the table does not have is an error.
pub fn asked(cells: &Cells, names: &str) -> Result<BTreeSet<String>> {
    let names: BTreeSet<String> = names.split(',').map(str::to_owned).collect();
    if let Some(name) = names.iter().find(|name| !cells.rows.contains(name)) {
        bail!("the table has no row {name:?}; it has {}", cells.rows.join(" "));
    }
    Ok(names)
}

/// The table of these machines, and how many cells are empty or wrong. With `only`, other rows are left out, and not judged.
pub fn table(cells: &Cells, machines: &BTreeMap<String, Filled>, long: bool, only: Option<&BTreeSet<String>>) -> Result<(String, usize)> {
    let Cells { rows, short, columns: expected } = cells;
    let mut text = String::new();
    let mut columns = Vec::new();
    for one in expected.iter().filter(|one| machines.contains_key(&one.machine) || matches!(one.need, Need::Impossible(_))) {
        match &one.need {
            Need::Impossible(reason) => text += &format!("{} {}: impossible: {reason}\n", one.machine, one.column),
            _ => columns.push(one),
        }
    }
    for (machine, filled) in machines {
        for (row, column) in filled.keys() {
            ensure!(rows.contains(row), "the tests filled in a row that the table does not have: {row}");
            let known = columns.iter().any(|one| one.machine == *machine && one.column == *column);
            ensure!(known, "the tests filled in a column that tests/cells.txt does not have: {machine} {column}");
        }
    }
    for (index, one) in columns.iter().enumerate() {
        text += &format!("{:>3} {} {}\n", index + 1, one.machine, one.column);
    }
    text += "o right, F wrong, ? empty, . not in this form, - no such provider here\n\n";
    let numbers = (1..=columns.len()).map(|number| format!("{number:>3}")).collect::<String>();
    text += &format!("{:<20}{numbers}\n", "");
    let mut bad = 0;
    for row in rows.iter().filter(|row| only.is_none_or(|only| only.contains(*row))) {
        text += &format!("{row:<20}");
        for one in &columns {
            let filled = &machines[&one.machine];
            let none = !filled.keys().any(|(_, column)| *column == one.column);
            let sign = match filled.get(&(row.clone(), one.column.clone())) {
                Some(true) => 'o',
                Some(false) => 'F',
                None if one.need == Need::Perhaps && none => '-',
                // A row that was asked for is run in every form.
                None if one.need == Need::Short && !long && only.is_none() && !short.contains(row) => '.',
                None => '?',
            };
            bad += usize::from(matches!(sign, 'F' | '?'));
            text += &format!("{sign:>3}");
        }
        text.push('\n');
    }
    Ok((text, bad))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Cells {
        parse("# x\nrows anon file\nshort anon\n\nnative  best/exact  all\nnative kprobe/exact perhaps\n6.1-v2  best/exact   short\n6.12-v1 - impossible: not built\n").unwrap()
    }

    fn filled(lines: &[&str]) -> Filled {
        let mut filled = Filled::new();
        for line in lines {
            note(line, &mut filled);
        }
        filled
    }

    #[test]
    fn a_full_table_has_nothing_bad() {
        let machines = BTreeMap::from([
            ("native".to_owned(), filled(&["test x ... CELL anon best/exact ok", "CELL file best/exact ok"])),
            ("6.1-v2".to_owned(), filled(&["CELL anon best/exact ok"])),
        ]);
        let (text, bad) = table(&expected(), &machines, false, None).unwrap();
        assert_eq!(bad, 0, "{text}");
        assert!(text.contains("6.12-v1 -: impossible: not built"), "{text}");
    }

    #[test]
    fn empty_and_wrong_cells_are_bad() {
        let machines = BTreeMap::from([("native".to_owned(), filled(&["CELL anon best/exact ok", "CELL anon best/exact FAIL"]))]);
        let (text, bad) = table(&expected(), &machines, false, None).unwrap();
        assert_eq!(bad, 2, "{text}");
        // In the long form a machine needs all rows.
        let machines = BTreeMap::from([("6.1-v2".to_owned(), filled(&["CELL anon best/exact ok"]))]);
        assert_eq!(table(&expected(), &machines, true, None).unwrap().1, 1);
    }

    #[test]
    fn only_the_rows_asked_for_are_judged() {
        let machines = BTreeMap::from([
            ("native".to_owned(), filled(&["CELL file best/exact ok"])),
            ("6.1-v2".to_owned(), filled(&["CELL file best/exact ok"])),
        ]);
        let only = asked(&expected(), "file").unwrap();
        let (text, bad) = table(&expected(), &machines, false, Some(&only)).unwrap();
        assert!(bad == 0 && !text.contains("\nanon"), "{text}");
        assert_eq!(table(&expected(), &machines, false, None).unwrap().1, 2, "unfiltered, the others are empty");
        // One that was asked for and is not there is as bad as ever, also where the short form would not have it.
        let only = asked(&expected(), "anon,file").unwrap();
        assert_eq!(table(&expected(), &machines, false, Some(&only)).unwrap().1, 2);
        let machines = BTreeMap::from([("6.1-v2".to_owned(), filled(&["CELL anon best/exact ok"]))]);
        assert_eq!(table(&expected(), &machines, false, Some(&only)).unwrap().1, 1);
        assert!(asked(&expected(), "anon,nonsense").is_err());
    }

    #[test]
    fn what_nobody_expects_is_an_error() {
        let machines = BTreeMap::from([("native".to_owned(), filled(&["CELL anon fentry/exact ok"]))]);
        assert!(table(&expected(), &machines, false, None).is_err());
        assert!(parse("rows anon\nshort anon\nnative best/exact some\n").is_err());
        assert!(parse("rows anon\nshort file\n").is_err());
    }
}
