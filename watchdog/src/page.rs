//! The frame of an HTML page that needs nothing else: no script, no network, a style of its own. What stands in it is
//! its module's, which puts it together with maud, so that it is escaped.

use maud::{DOCTYPE, Markup, PreEscaped, html};

/// Whatever may be in the page, a browser fetches nothing for it and runs nothing of it.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// A page of that title and style sheet.
#[must_use]
pub fn frame(title: &str, style: &str, body: &Markup) -> String {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(style)) }
            }
            body { (body) }
        }
    };
    markup.into_string()
}
