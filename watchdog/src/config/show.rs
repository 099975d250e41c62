//! What is in force, as a file that says so.

use super::keys::{self, show};
use super::resolve::{Layer, Origin};
use super::{Attach, Config, Daemon, Exporters, Incidents, OrNone, Size, Span};

impl Config {
    /// `[attach]`, `[policy]`, `[incidents]` and every `[export.NAME]` as TOML.
    pub fn as_toml(&self) -> String {
        let attach = show("[attach]", keys::ATTACH, &Layer::from(&self.attach));
        let policy = show("[policy]", keys::POLICY, &self.policy);
        let kept = kept(&self.incidents, &self.exporters);
        format!("{attach}\n{policy}\n{kept}")
    }
}

impl Daemon {
    /// Every `[[watch]]`, `[oomd]`, `[users]`, `[policy]`, `[prometheus]`, `[incidents]` and every `[export.NAME]` as
    /// TOML.
    pub fn as_toml(&self) -> String {
        let watches = self.watch.iter();
        let watches = watches.map(|watch| show("[[watch]]", keys::WATCH, watch) + "\n");
        let oomd = show("[oomd]", keys::OOMD, &self.oomd);
        let users = show("[users]", keys::USERS, &self.users);
        let policy = show("[policy]", keys::POLICY, &self.policy);
        let watches: String = watches.collect();
        let prometheus = show("[prometheus]", keys::PROMETHEUS, &self.prometheus);
        let kept = kept(&self.incidents, &self.exporters);
        format!("{watches}{oomd}\n{users}\n{policy}\n{prometheus}\n{kept}")
    }
}

fn kept(incidents: &Incidents, exporters: &Exporters) -> String {
    let mut text = show("[incidents]", keys::INCIDENTS, incidents);
    for (name, exporter) in exporters {
        text.push('\n');
        text.push_str(&show(&format!("[export.{name}]"), keys::EXPORT, exporter));
    }
    text
}

/// The layer that says all of it. Verbosity has no key.
impl From<&Attach> for Layer {
    fn from(attach: &Attach) -> Self {
        Self {
            origin: Origin::CommandLine,
            memory_max: Some(attach.memory_max),
            memory_high: Some(attach.memory_high),
            timeout: Some(OrNone(attach.timeout.and_then(Span::new))),
            test_memory: Some(OrNone(attach.test_memory.and_then(Size::new))),
            test_timeout: Some(OrNone(attach.test_timeout.and_then(Span::new))),
            pytest: Some(attach.pytest),
            on_pressure: Some(attach.on_pressure),
            safe: Some(attach.safe),
            dry_run: Some(attach.dry_run),
            daemon: Some(attach.daemon),
            live: Some(attach.live),
            report: attach.report.clone(),
        }
    }
}
