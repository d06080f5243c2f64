//! `/proc/PID/mountinfo` (proc_pid_mountinfo(5)). Pure.

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Device number as in `st_dev`: major, minor.
    pub device: (u32, u32),
    /// Part of the file system that is shown, `/` for all of it.
    pub root: Vec<u8>,
    /// Where.
    pub point: Vec<u8>,
    /// Type of the file system.
    pub kind: Vec<u8>,
    /// Options of the file system, separated by commas; escapes of the kernel are still in them.
    pub options: Vec<u8>,
}

/// The mounts of a table, in its order. Lines that do not parse are passed over.
pub fn mounts(mountinfo: &[u8]) -> impl Iterator<Item = Mount> {
    mountinfo.split(|&byte| byte == b'\n').filter_map(mount)
}

/// `36 35 98:0 /root /point options [optional...] - type source super-options`. A source can be empty.
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let (major, minor) = std::str::from_utf8(fields.nth(2)?).ok()?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let (kind, _source) = (fields.next()?.to_vec(), fields.next()?);
    Some(Mount { device, root, point, kind, options: fields.next().unwrap_or_default().to_vec() })
}

impl Mount {
    /// Options of the file system.
    pub fn options(&self) -> impl Iterator<Item = &[u8]> {
        self.options.split(|&byte| byte == b',')
    }
}

/// Undoes the kernel's `\ooo` escapes of blanks and backslashes.
#[must_use]
pub fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let value = match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if first == b'\\' => {
                Some(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'))
            }
            _ => None,
        };
        bytes.push(value.unwrap_or(first));
        rest = if value.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_and_without_optional_fields() {
        let found: Vec<Mount> = mounts(
            b"99 1 0:44 /a\\040b /mnt/x\\134y rw,nosuid shared:5 master:1 - cgroup2 none rw,nsdelegate\n\
              21 1 254:1 / / rw,relatime - ext4 /dev/root rw\n\
              22 1 0:50 / /tmp rw - tmpfs  rw,size=1k\n",
        )
        .collect();
        assert_eq!((found[0].root.as_slice(), found[0].point.as_slice()), (&b"/a b"[..], &br"/mnt/x\y"[..]));
        assert_eq!((found[0].kind.as_slice(), found[0].options().last()), (&b"cgroup2"[..], Some(&b"nsdelegate"[..])));
        assert_eq!((found[1].device, found[1].kind.as_slice()), ((254, 1), &b"ext4"[..]));
        assert_eq!((found[2].kind.as_slice(), found[2].options.as_slice()), (&b"tmpfs"[..], &b"rw,size=1k"[..]), "a source may be empty");
    }

    #[test]
    fn what_is_no_mount_is_passed_over() {
        for bad in
            [&b"x"[..], b"", b"1 2 3 4 5 6", b"1 2 0:x / /m rw - tmpfs c rw", b"1 2 0:1 / /m rw tmpfs c rw", b"1 2 3:4 / /", b"\xff \xff"]
        {
            assert_eq!(mounts(bad).count(), 0, "{bad:?}");
        }
    }

    #[test]
    fn unescape_leaves_what_is_no_escape() {
        assert_eq!(unescape(br"\04"), br"\04");
        assert_eq!(unescape(br"a\\040"), br"a\ ");
        assert_eq!(unescape(br"\777"), br"\777");
    }
}
