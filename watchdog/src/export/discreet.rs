//! What is not told of a receiver: what stands in its address behind the host, and in the headers, is often the very
//! key to it, and what a receiver answers likes to repeat that. How exporters do is told to every user. Pure.

use super::percent;
use crate::config::Headers;
use crate::incident::Text;
use reqwest::Url;

/// Shorter words are in every text; they are no secrets.
const LEAST_CHARS: usize = 6;
/// In their place.
const STARS: &str = "***";
/// Of what a receiver says.
const EXCERPT_CHARS: usize = 200;
/// What OTLP itself puts behind an address.
const OF_OTLP: [&str; 2] = ["/v1/logs", "/v1/metrics"];

/// What is not told, the longest first.
#[derive(Debug)]
pub(super) struct Discreet(Vec<String>);

impl Discreet {
    /// Nothing of these addresses but where they are, and no header.
    pub(super) fn of(urls: &[&Url], headers: &Headers) -> Self {
        let of_urls = urls.iter().flat_map(|url| of_url(url));
        let mut all: Vec<String> = of_urls.collect();
        for value in headers.0.values() {
            all.push(value.clone());
            // Behind the scheme of an `Authorization`.
            all.extend(value.split_whitespace().skip(1).map(str::to_owned));
        }
        // As receivers show it who decode it first.
        let decoded: Vec<String> = all.iter().map(|text| percent::decode(text)).collect();
        all.extend(decoded);
        all.retain(|text| text.chars().count() >= LEAST_CHARS);
        // A part of another would leave the rest of that.
        all.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        all.dedup();
        Self(all)
    }

    /// As much of a text as is told to a person.
    pub(super) fn excerpt(&self, text: &str) -> Text {
        let told = self.tell(text);
        Text::from(told.trim().chars().take(EXCERPT_CHARS).collect::<String>())
    }

    /// The text without them.
    pub(super) fn tell(&self, text: &str) -> String {
        let mut told = text.to_owned();
        for secret in &self.0 {
            if told.contains(secret.as_str()) {
                told = told.replace(secret.as_str(), STARS);
            }
        }
        told
    }
}

fn of_url(url: &Url) -> Vec<String> {
    let path = url.path();
    let mut own = OF_OTLP.iter().filter_map(|end| path.strip_suffix(end));
    let path = own.next().unwrap_or(path).trim_end_matches('/');
    let mut all = vec![path.to_owned(), url.username().to_owned()];
    all.extend(path.split('/').map(str::to_owned));
    all.extend(url.password().map(str::to_owned));
    for part in [url.query(), url.fragment()].into_iter().flatten() {
        all.push(part.to_owned());
        let values = part
            .split('&')
            .filter_map(|pair| Some(pair.split_once('=')?.1));
        all.extend(values.map(str::to_owned));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn discreet(url: &str) -> Discreet {
        let mut headers = Headers::default();
        headers
            .add("Authorization", "Bearer s3cr3t-token")
            .expect("right");
        headers.add("X-Scope-OrgID", "7").expect("right");
        Discreet::of(&[&Url::parse(url).expect("one")], &headers)
    }

    #[test]
    fn what_stands_behind_the_host_and_in_headers_is_not_told() {
        let discreet = discreet("https://me:passw%2Frd@a:1/hooks/T0/SECRET%20x?key=topsecret&a=1");
        for (said, told) in [
            (
                "no /hooks/T0/SECRET%20x here, nor /hooks/T0/SECRET x",
                "no *** here, nor ***",
            ),
            (
                r#"{"path":"\/hooks\/T0\/SECRET x"}"#,
                r#"{"path":"\/hooks\/T0\/***"}"#,
            ),
            ("key topsecret is no more", "key *** is no more"),
            ("?key=topsecret&a=1", "?***"),
            ("who is passw/rd?", "who is ***?"),
            (
                "s3cr3t-token is over, Bearer s3cr3t-token",
                "*** is over, ***",
            ),
            ("7 is a number, a:1 a place", "7 is a number, a:1 a place"),
        ] {
            assert_eq!(discreet.tell(said), told);
        }
    }

    #[test]
    fn what_is_every_receivers_is_told() {
        let said = "no metrics at /v1/metrics, no logs at /v1/logs";
        assert_eq!(
            discreet("http://localhost:4318/v1/metrics").tell(said),
            said
        );
        let below = discreet("http://localhost:4318/tenants/ab12cd/v1/logs");
        assert_eq!(below.tell("/tenants/ab12cd/v1/logs"), "***/v1/logs");
    }
}
