//! One module for each noun.

pub(crate) mod confirm;
pub(crate) mod device;
pub(crate) mod guards;
pub(crate) mod history;
pub(crate) mod invite;
pub(crate) mod join;
pub(crate) mod journal;
pub(crate) mod ledger;
pub(crate) mod locks;
pub(crate) mod member;
pub(crate) mod overview;
pub(crate) mod pairing;
pub(crate) mod peers;
pub(crate) mod place;
pub(crate) mod quarantine;
pub(crate) mod recovery;
pub(crate) mod rescan;
pub(crate) mod restore;
pub(crate) mod status;
pub(crate) mod voters;
pub(crate) mod wait;
pub(crate) mod watch;
pub(crate) mod why;
