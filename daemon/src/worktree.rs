//! worktree: not written yet.
