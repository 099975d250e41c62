//! What memwatch does for users, with real users' processes. Needs root, and fails without.

#[path = "control/permission.rs"]
mod permission;
