//! Keeps runs of tests on disk, in SQLite, and shows them as one page. A run is known by its record's UUID. The
//! tables are `store`'s, where the file lies by default `place`'s, the page `page`'s; what runs say of each
//! other is `tests`'s.

mod error;
mod page;
mod place;
mod store;

pub use error::HistoryError;
pub use page::page;
pub use place::{PlaceError, default_file, project_of};
pub use store::{History, Kept};
