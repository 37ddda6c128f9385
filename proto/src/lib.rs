//! The wire formats of p2p-sync, generated from `p2psync/**/*.proto`. Nothing here knows the engine's types; the
//! daemon converts by hand.

/// What daemons say to each other.
pub mod peer {
    /// Version 1.
    #[expect(
        clippy::all,
        clippy::pedantic,
        clippy::nursery,
        clippy::restriction,
        reason = "generated"
    )]
    pub mod v1 {
        tonic::include_proto!("p2psync.peer.v1");
    }
}
