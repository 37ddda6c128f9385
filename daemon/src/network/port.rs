//! Listening, and getting out of the way of another daemon.
//!
//! libp2p sets `SO_REUSEPORT` on its listeners. Two daemons of one user would both get the port, and the kernel would
//! deal incoming connections out between them at random. So a port counts as free only if a plain socket can bind it
//! *and* this process holds its name in the abstract socket namespace, which closes the gap between the two binds.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use rustix::net::{AddressFamily, SocketType, sockopt};

/// The claim on a port of this network namespace; given up when dropped.
#[derive(Debug)]
pub(super) struct PortClaim {
    _name: Option<UnixListener>,
}

/// Claims the port of a listen address, if it names one.
///
/// # Errors
/// [`io::ErrorKind::AddrInUse`] if another process has it; any other error of binding.
pub(super) fn claim(address: &Multiaddr) -> io::Result<PortClaim> {
    let Some(socket) = socket_of(address).filter(|socket| socket.port() != 0) else {
        return Ok(PortClaim { _name: None });
    };
    let name = format!("p2p-sync/listen/{socket}");
    let name = UnixListener::bind_addr(&UnixAddr::from_abstract_name(name)?)?;
    probe(socket)?;
    Ok(PortClaim { _name: Some(name) })
}

/// Binds a plain socket for a moment. IPv6 addresses are taken for IPv6 alone, as libp2p does, so that the wildcards of
/// both families can have one port.
fn probe(address: SocketAddr) -> io::Result<()> {
    let family = if address.is_ipv6() {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    Ok(rustix::net::listen(&socket, 1)?)
}

/// Returns the address with port 0: any free one.
pub(super) fn with_free_port(address: &Multiaddr) -> Multiaddr {
    let parts = address.iter().map(|part| match part {
        Protocol::Tcp(_) => Protocol::Tcp(0),
        other => other,
    });
    parts.collect()
}

fn socket_of(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

/// Says whether an address is one of a local network: private, link-local or loopback.
pub(super) fn is_local(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_private() || ip.is_link_local() || ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_loopback(),
        _ => false,
    }
}

/// Says whether an address is of this machine alone.
pub(super) fn is_loopback(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        _ => false,
    }
}

/// Says whether an address can be dialled as it is: an IP address and a TCP port.
pub(super) fn is_dialable(address: &Multiaddr) -> bool {
    socket_of(address).is_some_and(|socket| socket.port() != 0 && !socket.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_wildcards_of_both_families_can_have_one_port() {
        let port = TcpListener::bind("0.0.0.0:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let v4 = claim(&format!("/ip4/0.0.0.0/tcp/{port}").parse().unwrap()).unwrap();
        let _listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
        claim(&format!("/ip6/::/tcp/{port}").parse().unwrap()).unwrap();
        drop(v4);
    }

    #[test]
    fn a_port_that_somebody_listens_on_cannot_be_claimed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = address(listener.local_addr().unwrap().port());
        assert_eq!(claim(&taken).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_claimed_port_cannot_be_claimed_again_until_it_is_given_up() {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let first = claim(&address(port)).unwrap();
        assert!(claim(&address(port)).is_err());
        drop(first);
        assert!(claim(&address(port)).is_ok());
    }

    #[test]
    fn any_free_port_needs_no_claim() {
        assert!(claim(&with_free_port(&address(22010))).is_ok());
        assert_eq!(with_free_port(&address(22010)), address(0));
    }

    #[test]
    fn local_addresses_are_told_from_others() {
        for local in [
            "/ip4/192.168.1.2/tcp/1",
            "/ip4/127.0.0.1/tcp/1",
            "/ip6/fe80::1/tcp/1",
        ] {
            assert!(is_local(&local.parse().unwrap()), "{local}");
        }
        for far in [
            "/ip4/8.8.8.8/tcp/1",
            "/ip6/2001:db8::1/tcp/1",
            "/dns4/example.org/tcp/1",
        ] {
            assert!(!is_local(&far.parse().unwrap()), "{far}");
        }
    }

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
    }
}
