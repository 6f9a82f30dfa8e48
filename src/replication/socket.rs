//! Sockets: TCP and Unix, connected within a deadline and read in slices.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};

use super::ReplicationError;
use super::conninfo::{Endpoint, Keepalives};
use super::patience::{SLICE, Wait};

/// A connected stream. Reads and writes return `WouldBlock` after [`SLICE`] without progress.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// One address to connect to.
pub(super) enum Address<'a> {
    Tcp(SocketAddr),
    Unix { directory: &'a Path, port: u16 },
}

/// The addresses of a server, in the resolver's order. Name resolution has the resolver's own time limits.
pub(super) fn addresses(endpoint: &Endpoint) -> Result<Vec<Address<'_>>, ReplicationError> {
    let failed = |source| ReplicationError::Connect { server: endpoint.to_string(), source };
    match endpoint {
        Endpoint::Unix { directory, port } => Ok(vec![Address::Unix { directory, port: *port }]),
        Endpoint::Tcp { address: Some(address), port, .. } => Ok(vec![Address::Tcp((*address, *port).into())]),
        Endpoint::Tcp { host, address: None, port } => {
            let found: Vec<_> = match host.parse::<IpAddr>() {
                Ok(address) => vec![Address::Tcp((address, *port).into())],
                Err(_) => (host.as_str(), *port).to_socket_addrs().map_err(failed)?.map(Address::Tcp).collect(),
            };
            if found.is_empty() {
                return Err(failed(io::Error::new(io::ErrorKind::NotFound, "the host name has no address")));
            }
            Ok(found)
        }
    }
}

impl Socket {
    /// Connects. `server` is for error messages; `wait` bounds the attempt.
    pub(super) fn connect(
        address: &Address<'_>,
        keepalives: &Keepalives,
        server: &str,
        wait: &Wait<'_>,
    ) -> Result<Self, ReplicationError> {
        let failed = |error: Errno| ReplicationError::Connect { server: server.to_owned(), source: error.into() };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = match address {
            Address::Tcp(address) => {
                let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
                let socket = socket_with(family, SocketType::STREAM, flags, None).map_err(failed)?;
                finish(&socket, connect(&socket, address), wait).map_err(|error| error.or(failed))?;
                Socket::Tcp(TcpStream::from(socket))
            }
            Address::Unix { directory, port } => {
                let path = directory.join(format!(".s.PGSQL.{port}"));
                let address = SocketAddrUnix::new(path).map_err(failed)?;
                let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
                loop {
                    // A full backlog answers EAGAIN and cannot be polled for: try again until the time is up.
                    match connect(&socket, &address) {
                        Err(Errno::AGAIN) => {
                            wait.go_on()?;
                            std::thread::sleep(SLICE / 10);
                        }
                        result => break finish(&socket, result, wait).map_err(|error| error.or(failed))?,
                    }
                }
                Socket::Unix(UnixStream::from(socket))
            }
        };
        socket.prepare(keepalives).map_err(|source| ReplicationError::Connect { server: server.to_owned(), source })?;
        Ok(socket)
    }

    /// Blocking with slices, keepalives on, small messages sent at once.
    fn prepare(&self, keepalives: &Keepalives) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(SLICE))?;
                stream.set_write_timeout(Some(SLICE))?;
                stream.set_nodelay(true)?;
                sockopt::set_socket_keepalive(stream, keepalives.enabled)?;
                if let Some(idle) = keepalives.idle {
                    sockopt::set_tcp_keepidle(stream, idle)?;
                }
                if let Some(interval) = keepalives.interval {
                    sockopt::set_tcp_keepintvl(stream, interval)?;
                }
                if let Some(count) = keepalives.count {
                    sockopt::set_tcp_keepcnt(stream, count)?;
                }
            }
            Socket::Unix(stream) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(SLICE))?;
                stream.set_write_timeout(Some(SLICE))?;
            }
        }
        Ok(())
    }
}

/// Why connecting failed: the system's error, or the wait's own.
enum Failed {
    System(Errno),
    Waiting(ReplicationError),
}

impl Failed {
    fn or(self, system: impl FnOnce(Errno) -> ReplicationError) -> ReplicationError {
        match self {
            Failed::System(error) => system(error),
            Failed::Waiting(error) => error,
        }
    }
}

/// Waits for a connection that is being made.
fn finish(socket: &OwnedFd, begun: rustix::io::Result<()>, wait: &Wait<'_>) -> Result<(), Failed> {
    match begun {
        Ok(()) => return Ok(()),
        Err(Errno::INPROGRESS | Errno::INTR) => {}
        Err(error) => return Err(Failed::System(error)),
    }
    let slice = Timespec::try_from(SLICE).map_err(|_| Failed::System(Errno::INVAL))?;
    loop {
        match poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&slice)) {
            Ok(0) | Err(Errno::INTR) => wait.go_on().map_err(Failed::Waiting)?,
            Ok(_) => break,
            Err(error) => return Err(Failed::System(error)),
        }
    }
    match sockopt::socket_error(socket) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) | Err(error) => Err(Failed::System(error)),
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.read(buffer),
            Socket::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.write(buffer),
            Socket::Unix(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
