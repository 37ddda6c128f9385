//! Models of protocols, whose states are all looked at: see [`locks`].

pub mod locks;
