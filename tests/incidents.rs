//! Incidents as a user meets them: listed, shown, drawn, and the picture in a real browser.

#[path = "incidents/browser.rs"]
mod browser;
#[path = "incidents/commands.rs"]
mod commands;
#[path = "incidents/pictures.rs"]
mod pictures;
#[path = "support/storm.rs"]
mod storm;
