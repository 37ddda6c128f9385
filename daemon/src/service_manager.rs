//! service_manager: not written yet.
