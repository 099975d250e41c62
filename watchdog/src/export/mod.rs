//! What others read a run by: one format per file, each made from the record alone. Pure, apart from
//! [`github`]'s appending to a file that GitHub names. Who writes what where is `agent`'s; memwatch's own two
//! faces, the record's JSON and the terminal, are `incident`'s.

pub mod ctrf;
pub mod github;
pub mod junit;
mod node;
pub mod refusal;
