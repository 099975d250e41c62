//! The exporters under one name: what the configuration says becomes one of them, and each takes a record or says
//! why not. When one is tried again is [`super::backoff`]'s; what still has to be told is [`super::queue`]'s.

use super::desktop::Desktop;
use super::http::SetupError;
use super::journal::Journal;
use super::otlp::Otlp;
use super::refusal::Refusal;
use super::webhook::Webhook;
use crate::config::{self, ExporterType};
use crate::incident::Record;

/// A receiver has a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// What it said to it.
    pub note: Option<String>,
}

/// One of them.
#[derive(Debug)]
pub enum Exporter {
    /// OTLP.
    Otlp(Otlp),
    /// A webhook.
    Webhook(Webhook),
    /// The journal.
    Journal(Journal),
    /// Desktops.
    Desktop(Desktop),
}

impl Exporter {
    /// Gets ready what the configuration asks for under this name. Reads files that it names.
    ///
    /// # Errors
    /// A file is not what it should be.
    pub fn new(name: &str, config: &config::Exporter) -> Result<Self, SetupError> {
        match config.of_name(name) {
            Some(ExporterType::Otlp) => Otlp::new(config).map(Self::Otlp),
            Some(ExporterType::Webhook) => Webhook::new(config).map(Self::Webhook),
            Some(ExporterType::Journal) => Ok(Self::Journal(Journal::default())),
            Some(ExporterType::Desktop) => Ok(Self::Desktop(Desktop::default())),
            None => Err(SetupError::NoReceiver),
        }
    }

    /// Tells of a record.
    ///
    /// # Errors
    /// It was not taken: now, or for good.
    pub async fn deliver(&self, record: &Record) -> Result<Delivered, Refusal> {
        match self {
            Self::Otlp(otlp) => otlp.deliver(record).await,
            Self::Webhook(webhook) => webhook.deliver(record).await,
            Self::Journal(journal) => journal.deliver(record).await,
            Self::Desktop(desktop) => desktop.deliver(record).await,
        }
    }
}
