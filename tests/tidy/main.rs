//! Rules of the project that no compiler knows: who may depend on whom, what the core must not touch, how large a file
//! may be, what must not stand in the tree.

mod layering;
mod manifests;
mod sizes;
mod source;
mod text;
