//! Shows one notification on the bus of whoever runs this (org.freedesktop.Notifications 1.2). To whom, and when, is
//! [`super::Desktop`]'s.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zbus::{Connection, Variant};

/// What is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// One line, which no desktop takes for markup.
    pub title: String,
    /// Some lines.
    pub body: String,
    /// Whether it stays until somebody has seen it.
    pub is_grave: bool,
}

/// Longer than any that memwatch makes.
const MAX_BYTES: u64 = 64 << 10;
/// As much of its text as a desktop has room for.
const TEXT_CHARS: usize = 600;
/// For each answer of the bus.
const PATIENCE: Duration = Duration::from_secs(5);

const NAME: &str = "org.freedesktop.Notifications";
const PATH: &str = "/org/freedesktop/Notifications";

/// It is not shown.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// What came is no notification.
    #[error("no notification came: {0}")]
    Input(#[from] io::Error),
    /// The bus, or who shows notifications, refuses.
    #[error("the desktop does not show it: {0}")]
    Bus(#[from] zbus::Error),
    /// They do not answer.
    #[error("the desktop did not answer in {} s", PATIENCE.as_secs())]
    Late,
}

/// The address of the bus at this socket, as D-Bus writes it.
pub(super) fn address(socket: &Path) -> String {
    let mut address = String::from("unix:path=");
    for byte in socket.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'/' | b'.' | b'*' => {
                address.push(char::from(*byte));
            }
            other => address += &format!("%{other:02x}"),
        }
    }
    address
}

/// Reads a notification from `input` and shows it on this process's session bus.
///
/// # Errors
/// It is not shown.
pub fn run(input: impl Read) -> Result<(), ShowError> {
    let notification = serde_json::from_reader(input.take(MAX_BYTES)).map_err(io::Error::from)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let shown = async { tokio::time::timeout(PATIENCE, show(&notification)).await };
    let shown = runtime.block_on(shown);
    runtime.shutdown_background();
    Ok(shown.map_err(|_| ShowError::Late)??)
}

async fn show(notification: &Notification) -> zbus::Result<()> {
    let bus = Connection::session().await?;
    let call = async |method: &str, body: &_| {
        let answer = bus.call_method(Some(NAME), PATH, Some(NAME), method, body);
        answer.await
    };
    let answer = call("GetCapabilities", &()).await?;
    let capabilities: Vec<String> = answer.body().deserialize()?;
    let takes_markup = capabilities.iter().any(|it| it == "body-markup");
    let text: String = notification.body.chars().take(TEXT_CHARS).collect();
    let text = if takes_markup { escaped(&text) } else { text };
    let urgency = if notification.is_grave { 2_u8 } else { 1 };
    let hints = HashMap::from([("urgency", Variant::from(urgency))]);
    let (replaces, actions, timeout) = (0_u32, Vec::<&str>::new(), -1_i32);
    let body = (
        "memwatch",
        replaces,
        "dialog-warning",
        &*notification.title,
        &*text,
        actions,
        hints,
        timeout,
    );
    bus.call_method(Some(NAME), PATH, Some(NAME), "Notify", &body)
        .await
        .map(drop)
}

/// For a desktop that reads markup: names are shown, and not obeyed.
fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;");
    text.replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_markup_and_no_path_another_address() {
        let hostile = "<a href=\"x\">&lt;b></a>";
        let shown = "&lt;a href=\"x\"&gt;&amp;lt;b&gt;&lt;/a&gt;";
        assert_eq!(escaped(hostile), shown);
        let odd = Path::new("/run/user/1000,guid=7;tcp:/bus");
        assert_eq!(
            address(odd),
            "unix:path=/run/user/1000%2cguid%3d7%3btcp%3a/bus"
        );
    }
}
