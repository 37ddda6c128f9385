//! The fold: from the set of events to what stands at a path (ledger.md 4).
//!
//! Versions of one path are put together by [`PathState::apply`], one at a time in any order that respects `seen`;
//! [`fold_set`](set::fold_set) computes the same from the whole set at once and is the oracle for it. Names (a
//! directory against a file, names of conflict copies) are a second step, in [`names`]. How a version stands to the locks
//! on its path is found before, by [`Standing`].

mod fence;
pub mod names;
mod path;
mod rebuilt;
pub mod set;

pub use fence::{Fence, Fences, Past, Standing};
pub use path::{Applied, Origin, PathState, Version, WriteOrder};
pub use rebuilt::{Rebuilt, Said};
