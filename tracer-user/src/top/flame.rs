//! Stacks as a tree of boxes, the root above: an icicle.

use crate::report::{Cgroup, Value};
use std::collections::BTreeMap;

/// Deepest tree that is built; frames beyond are one.
const DEEPEST: usize = 128;

/// A frame with all that it calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Bytes of all stacks through it.
    pub bytes: u64,
    /// By the name of the next frame.
    pub children: BTreeMap<String, Node>,
}

/// A box on the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The way from the root: names of frames.
    pub path: Vec<String>,
    /// First column.
    pub x: u16,
    /// Columns.
    pub width: u16,
    /// Row, from the zoomed box at 0.
    pub y: u16,
    /// Bytes.
    pub bytes: u64,
}

impl Node {
    /// The tree of these cgroups' stacks; the first frame is the process, and the last the kind.
    #[must_use]
    pub fn of<'a>(cgroups: impl Iterator<Item = &'a Cgroup>, value: Value) -> Node {
        let mut root = Node::default();
        for row in cgroups.flat_map(|cgroup| &cgroup.stacks) {
            let bytes = value.of(row);
            if bytes == 0 {
                continue;
            }
            let kind = format!("[{}]", row.kind);
            let frames =
                std::iter::once(row.comm.as_str()).chain(row.frames.iter().map(String::as_str).take(DEEPEST)).chain([kind.as_str()]);
            root.bytes = root.bytes.saturating_add(bytes);
            let mut node = &mut root;
            for frame in frames {
                node = node.children.entry(frame.to_owned()).or_default();
                node.bytes = node.bytes.saturating_add(bytes);
            }
        }
        root
    }

    /// The node at the end of a way.
    #[must_use]
    pub fn at(&self, path: &[String]) -> Option<&Node> {
        path.iter().try_fold(self, |node, name| node.children.get(name))
    }

    /// Boxes of the tree below a way, `rows` deep, on `columns`. What is narrower than a column is left out.
    #[must_use]
    pub fn cells(&self, zoom: &[String], columns: u16, rows: u16) -> Vec<Cell> {
        let mut cells = Vec::new();
        if let Some(node) = self.at(zoom).filter(|node| node.bytes > 0) {
            node.lay(zoom.to_vec(), (0, columns), (0, rows), &mut cells);
        }
        cells
    }

    fn lay(&self, path: Vec<String>, (x, width): (u16, u16), (y, rows): (u16, u16), cells: &mut Vec<Cell>) {
        if y >= rows || width == 0 {
            return;
        }
        let mut children: Vec<(&String, &Node)> = self.children.iter().collect();
        children.sort_by(|a, b| b.1.bytes.cmp(&a.1.bytes).then_with(|| a.0.cmp(b.0)));
        let (mut done, mut from) = (0_u64, x);
        for (name, child) in children {
            done = done.saturating_add(child.bytes);
            // From the sum of all so far, so that what is rounded away does not add up.
            let end = x + (u128::from(width) * u128::from(done.min(self.bytes)) / u128::from(self.bytes.max(1))) as u16;
            let path = [path.as_slice(), std::slice::from_ref(name)].concat();
            child.lay(path, (from, end - from), (y + 1, rows), cells);
            from = end;
        }
        cells.push(Cell { path, x, width, y, bytes: self.bytes });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::StackRow;

    fn tree() -> Node {
        let row = |frames: &[&str], live| StackRow {
            kind: "anon".to_owned(),
            comm: "java".to_owned(),
            frames: frames.iter().map(|frame| (*frame).to_owned()).collect(),
            live,
            ..StackRow::default()
        };
        let stacks = vec![row(&["main", "fill"], 60), row(&["main", "read"], 30), row(&["start"], 10), row(&["none"], 0)];
        Node::of([Cgroup { stacks, ..Cgroup::default() }].iter(), Value::Live)
    }

    #[test]
    fn bytes_add_up_from_the_leaves() {
        let root = tree();
        let path = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(root.bytes, 100);
        assert_eq!(root.at(&path(&["java", "main"])).unwrap().bytes, 90);
        assert_eq!(root.at(&path(&["java", "main", "fill", "[anon]"])).unwrap().bytes, 60);
        assert!(root.at(&path(&["java", "none"])).is_none());
    }

    #[test]
    fn boxes_stand_below_their_callers_and_never_beside_the_screen() {
        let root = tree();
        for columns in [1, 2, 7, 10, 100] {
            let cells = root.cells(&[], columns, 5);
            for cell in &cells {
                assert!(cell.x + cell.width <= columns && cell.width > 0, "{cell:?}");
                if let Some((_, above)) = cell.path.split_last() {
                    let caller = cells.iter().find(|other| other.path == above).unwrap();
                    assert!(caller.x <= cell.x && cell.x + cell.width <= caller.x + caller.width && cell.y == caller.y + 1);
                }
            }
        }
        let widths: Vec<u16> = root.cells(&[], 10, 4).into_iter().filter(|cell| cell.y == 3).map(|cell| cell.width).collect();
        assert_eq!(widths, [6, 3, 1], "fill, read, and the kind below start");
        let zoomed = root.cells(&["java".to_owned(), "main".to_owned()], 9, 2);
        assert_eq!(zoomed.iter().map(|cell| (cell.y, cell.width)).collect::<Vec<_>>(), [(1, 6), (1, 3), (0, 9)]);
        assert!(root.cells(&["gone".to_owned()], 9, 2).is_empty());
    }
}
