//! Carries out what the dialer decides. Host names are looked up here, with the system's resolver, each time anew.

use std::io;
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::DialOpts;
use tokio::task::JoinError;
use tokio::time::Instant;

use super::NetworkService;
use crate::network::dialer::{Attempt, peer_in};

/// How long the system may take to look up a name; beyond it the attempt has failed.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// An attempt, and the addresses behind its name.
pub(super) type Lookup = (Attempt, io::Result<Vec<Multiaddr>>);

impl NetworkService {
    pub(super) fn add_address(&mut self, address: &str) {
        let Ok(address) = address.parse::<Multiaddr>() else {
            tracing::warn!(address, "Not an address that can be dialled");
            return;
        };
        if !self.dialer.add_manual(address, Instant::now()) {
            tracing::warn!("Too many addresses to dial; the rest is left out");
        }
    }

    pub(super) fn dial_due(&mut self, now: Instant) {
        for attempt in self.dialer.due(now) {
            match &attempt {
                Attempt::Address(address) => match host_of(address) {
                    Some((host, port)) => self.start_lookup(attempt, host, port),
                    None => {
                        let options = to_addresses(address, vec![address.clone()]);
                        self.dial(&attempt, options);
                    }
                },
                Attempt::Peer(peer, addresses) => {
                    let options = DialOpts::peer_id(*peer)
                        .addresses(addresses.clone())
                        .allocate_new_port()
                        .build();
                    self.dial(&attempt, Some(options));
                }
            }
        }
    }

    pub(super) fn handle_lookup(&mut self, found: Result<Lookup, JoinError>) {
        let (attempt, addresses) = match found {
            Ok(lookup) => lookup,
            Err(error) => {
                tracing::error!(%error, "Looking up a host name panicked");
                return;
            }
        };
        let options = match (&attempt, addresses) {
            (Attempt::Address(address), Ok(found)) => to_addresses(address, found),
            (_, Err(error)) => {
                tracing::debug!(%error, ?attempt, "The host name is not known");
                None
            }
            (Attempt::Peer(..), Ok(_)) => None,
        };
        self.dial(&attempt, options);
    }

    fn start_lookup(&mut self, attempt: Attempt, host: String, port: u16) {
        let Attempt::Address(address) = &attempt else {
            return;
        };
        self.dialer.looking_up(address);
        let address = address.clone();
        self.lookups.spawn(async move {
            let lookup = tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((host, port)));
            let found = match lookup.await {
                Ok(Ok(found)) => Ok(found
                    .filter_map(|socket| with_ip(&address, socket.ip()))
                    .collect()),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
            (attempt, found)
        });
    }

    fn dial(&mut self, attempt: &Attempt, options: Option<DialOpts>) {
        let now = Instant::now();
        let Some(options) = options else {
            self.dialer.refused(attempt, now);
            return;
        };
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => self.dialer.started(attempt, connection),
            Err(error) => {
                tracing::debug!(%error, ?attempt, "Cannot dial");
                self.dialer.refused(attempt, now);
            }
        }
    }
}

/// Dials from a port of its own: reusing the listening port makes a redial fail while the old connection lingers.
/// libp2p takes one address only of a peer that is not named, so that is the first.
fn to_addresses(asked: &Multiaddr, found: Vec<Multiaddr>) -> Option<DialOpts> {
    let first = found.first()?.clone();
    let options = match peer_in(asked) {
        Some(peer) => DialOpts::peer_id(peer)
            .addresses(found)
            .allocate_new_port()
            .build(),
        None => DialOpts::unknown_peer_id()
            .address(first)
            .allocate_new_port()
            .build(),
    };
    Some(options)
}

/// Returns the name and port of an address with a host name.
fn host_of(address: &Multiaddr) -> Option<(String, u16)> {
    let mut parts = address.iter();
    let host = match parts.next()? {
        Protocol::Dns(host) | Protocol::Dns4(host) | Protocol::Dns6(host) => host.into_owned(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some((host, port)),
        _ => None,
    }
}

/// Returns the address with an IP address in place of the name; `None` if the name asks for the other version.
fn with_ip(address: &Multiaddr, ip: std::net::IpAddr) -> Option<Multiaddr> {
    let is_wanted = match address.iter().next()? {
        Protocol::Dns4(_) => ip.is_ipv4(),
        Protocol::Dns6(_) => ip.is_ipv6(),
        _ => true,
    };
    is_wanted.then(|| {
        let rest = address.iter().skip(1);
        std::iter::once(Protocol::from(ip)).chain(rest).collect()
    })
}
