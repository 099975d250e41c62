//! Pure: windows, policy, victim.
pub mod settings;
pub use settings::Settings;
