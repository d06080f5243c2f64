//! Telling systemd how it goes (sd_notify(3)): a datagram to the socket in `NOTIFY_SOCKET`, if there is one.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// Where systemd listens; says nothing where it does not.
#[derive(Debug, Default)]
pub struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
}

impl Notify {
    /// From the environment.
    ///
    /// # Errors
    /// The address is none, or there are no descriptors left.
    pub fn from_environment() -> io::Result<Notify> {
        match std::env::var_os("NOTIFY_SOCKET") {
            Some(path) if !path.is_empty() => Notify::to(path.as_encoded_bytes()),
            _ => Ok(Notify::default()),
        }
    }

    fn to(path: &[u8]) -> io::Result<Notify> {
        let address = match path.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read must not hold up the trace.
        socket.set_nonblocking(true)?;
        Ok(Notify { socket: Some((socket, address)) })
    }

    /// Says something, such as `READY=1`. What cannot be told is logged: the manager then acts as if nothing had been said.
    pub fn say(&self, what: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(what.as_bytes(), address)
        {
            log::debug!("the service manager was not told {what:?}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_arrives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        Notify::to(path.as_os_str().as_encoded_bytes()).unwrap().say("READY=1");
        let mut bytes = [0; 64];
        let length = manager.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"READY=1");
    }

    #[test]
    fn nobody_listens_and_nothing_happens() {
        Notify::default().say("READY=1");
        let folder = tempfile::tempdir().unwrap();
        Notify::to(folder.path().join("none").as_os_str().as_encoded_bytes()).unwrap().say("READY=1");
    }
}
