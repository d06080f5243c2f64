//! Which file a command name means, before anything is started, and everything that exec needs, ready for use after a fork.

use super::CommandError;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A command that exists, with its arguments and environment.
#[derive(Clone, Debug)]
pub struct Program {
    /// As given.
    name: OsString,
    /// Files to try, in order.
    candidates: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Program {
    /// Looks the command up as execvp(3) does: by its path if it has a slash, else in PATH. The environment is memtrail's own.
    ///
    /// # Errors
    /// [`CommandError::NotFound`] or [`CommandError::NotExecutable`], so that nothing is set up for a command that cannot run.
    pub fn resolve(command: &[OsString]) -> Result<Self, CommandError> {
        let name = command.first().ok_or(CommandError::Empty)?.clone();
        // The kernel looks /bin/sh's default path up where PATH is not set.
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
        let candidates = executable_files(&name, &path)?.iter().map(|p| c_string(p.as_os_str())).collect::<Result<_, _>>()?;
        let arguments = command.iter().map(|a| c_string(a)).collect::<Result<_, _>>()?;
        let variable = |(key, value): (OsString, OsString)| {
            let mut pair = key;
            pair.push("=");
            pair.push(value);
            c_string(&pair)
        };
        let environment = std::env::vars_os().map(variable).collect::<Result<_, _>>()?;
        Ok(Program { name, candidates, arguments, environment })
    }

    /// As given.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// The file that is tried first.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        self.candidates.first().map(|path| OsStr::from_bytes(path.as_bytes()).into())
    }

    pub(super) fn candidates(&self) -> &[CString] {
        &self.candidates
    }

    pub(super) fn arguments(&self) -> &[CString] {
        &self.arguments
    }

    pub(super) fn environment(&self) -> &[CString] {
        &self.environment
    }
}

fn c_string(text: &OsStr) -> Result<CString, CommandError> {
    CString::new(text.as_bytes()).map_err(|_| CommandError::Nul(text.to_owned()))
}

/// Files called `name` that have an execute bit.
fn executable_files(name: &OsStr, path: &OsStr) -> Result<Vec<PathBuf>, CommandError> {
    let named: Vec<PathBuf> = match name.as_bytes() {
        b"" => Vec::new(),
        bytes if bytes.contains(&b'/') => vec![PathBuf::from(name)],
        // An empty entry of PATH means the working directory.
        _ => std::env::split_paths(path)
            .map(|dir| if dir.as_os_str().is_empty() { Path::new(".").join(name) } else { dir.join(name) })
            .collect(),
    };
    let mut refusal = None;
    let mut files = Vec::new();
    for file in named {
        match std::fs::metadata(&file) {
            Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => files.push(file),
            Ok(_) => refusal = Some(io::Error::from_raw_os_error(libc::EACCES)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {}
            Err(error) => refusal = Some(error),
        }
    }
    match (files.is_empty(), refusal) {
        (false, _) => Ok(files),
        (true, Some(source)) => Err(CommandError::NotExecutable { program: name.to_owned(), source }),
        (true, None) => Err(CommandError::NotFound(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn file(dir: &Path, name: &str, mode: u32) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn look_up(name: &str, path: &OsStr) -> Result<Vec<PathBuf>, i32> {
        executable_files(OsStr::new(name), path).map_err(|e| e.exit_code())
    }

    #[test]
    fn looked_up_like_execvp() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        file(&a, "tool", 0o644);
        file(&b, "tool", 0o755);
        file(&a, "data", 0o644);
        fs::create_dir(a.join("folder")).unwrap();
        let path = std::env::join_paths([&a, &b]).unwrap();
        assert_eq!(look_up("tool", &path), Ok(vec![b.join("tool")]), "one that cannot run is passed over");
        assert_eq!(look_up("data", &path), Err(126));
        assert_eq!(look_up("folder", &path), Err(126));
        assert_eq!(look_up("nosuch", &path), Err(127));
        assert_eq!(look_up("", &path), Err(127));
        assert_eq!(look_up(b.join("tool").to_str().unwrap(), OsStr::new("")), Ok(vec![b.join("tool")]));
        assert_eq!(look_up(a.join("tool/under-a-file").to_str().unwrap(), &path), Err(127));
    }

    #[test]
    fn hostile_commands_are_refused() {
        assert!(matches!(Program::resolve(&[]), Err(CommandError::Empty)));
        let nul = OsStr::from_bytes(b"a\0b").to_owned();
        assert_eq!(Program::resolve(&["/bin/sh".into(), nul]).map(|_| ()).map_err(|e| e.exit_code()), Err(2));
    }
}
