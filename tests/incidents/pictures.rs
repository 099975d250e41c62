//! The picture in a real browser: it renders whole, offline, legibly, in light and dark, on a screen and a phone.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::browser::Browser;
use super::commands::Home;
use super::storm::storm;

/// The promise is a second; a machine that runs other tests beside is given more.
const OPENS_WITHIN: Duration = Duration::from_secs(10);

fn picture(home: &Home, processes: u32, tests: usize) -> PathBuf {
    let report = home.path().join(format!("{processes}.json"));
    fs::write(&report, storm(processes, tests).to_json()).expect("room");
    let file = home.path().join(format!("{processes}.html"));
    let name = |path: &Path| path.to_str().expect("ours").to_owned();
    let (code, _, beside) = home.run(&["html", &name(&report), "-o", &name(&file)]);
    assert_eq!(code, Some(0), "{beside}");
    file
}

/// What the browser had to complain about, and what it fetched beside the page itself.
fn complaints(browser: &Browser) -> Vec<&Value> {
    let is_complaint = |event: &&Value| match event["method"].as_str() {
        Some(
            "Log.entryAdded"
            | "Runtime.consoleAPICalled"
            | "Runtime.exceptionThrown"
            | "Network.loadingFailed",
        ) => true,
        Some("Network.requestWillBeSent") => {
            let url = event["params"]["request"]["url"]
                .as_str()
                .unwrap_or_default();
            !(url.starts_with("file:///") && url.ends_with(".html"))
        }
        _ => false,
    };
    browser.events.iter().filter(is_complaint).collect()
}

/// Texts of the page that stand over one another, among those that are drawn: legends and axes must be legible.
const OVERLAPS: &str = r"(() => {
    const found = [];
    for (const svg of document.querySelectorAll('svg.times, svg.plot')) {
        const texts = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
        const room = svg.getBoundingClientRect();
        for (const [text, box] of texts) {
            if (box.width && (box.left < room.left - 1 || box.right > room.right + 1)) found.push(text + ' is cut');
        }
        for (const [a, one] of texts) for (const [b, other] of texts) {
            const over = one.left < other.right && other.left < one.right && one.top < other.bottom && other.top < one.bottom;
            if (a < b && one.width && other.width && over) found.push(a + ' over ' + b);
        }
    }
    return found;
})()";

/// The contrast of each text with what is behind it, as WCAG 2 reckons it; those below 4.5.
const FAINT: &str = r"(() => {
    const parse = color => color.match(/[\d.]+/g).map(Number);
    const light = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const found = new Set();
    for (const element of document.querySelectorAll('body *')) {
        const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
        if (!own || element.closest('svg') || element.tagName === 'TITLE') continue;
        let behind = element;
        while (behind && /rgba\(0, 0, 0, 0\)|transparent/.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
        const [one, other] = [getComputedStyle(element).color, behind ? getComputedStyle(behind).backgroundColor : 'rgb(255, 255, 255)'].map(c => light(parse(c)));
        const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        if (contrast < 4.5) found.add(element.className + ' ' + element.textContent.slice(0, 40) + ' ' + contrast.toFixed(2));
    }
    return [...found];
})()";

#[test]
fn the_picture_renders_offline_and_legibly_in_light_and_dark_on_a_screen_and_a_phone() {
    let home = Home::new();
    let file = picture(&home, 12, 80);
    let mut browser = Browser::start();
    let keep = std::env::var_os("MEMWATCH_TEST_SCREENSHOTS").map(PathBuf::from);
    for (width, height) in [(1280, 900), (390, 844)] {
        for scheme in ["light", "dark"] {
            browser.open(&file, (width, height), scheme);
            let what = format!("{width} pixels, {scheme}");
            let folded = "document.querySelectorAll('details').forEach(it => it.open = true)";
            browser.evaluate(folded);
            assert_eq!(
                browser.evaluate("document.scrollingElement.scrollWidth"),
                width,
                "{what}: it scrolls sideways"
            );
            let dark = browser.evaluate("matchMedia('(prefers-color-scheme: dark)').matches");
            assert_eq!(dark, scheme == "dark");
            let background = browser.evaluate("getComputedStyle(document.body).backgroundColor");
            assert_eq!(
                background == "rgb(255, 255, 255)",
                scheme == "light",
                "{what}: {background}"
            );
            assert_eq!(browser.evaluate(OVERLAPS), serde_json::json!([]), "{what}");
            assert_eq!(browser.evaluate(FAINT), serde_json::json!([]), "{what}");
            // Every curve is drawn where it can be seen.
            let drawn = "[...document.querySelectorAll('svg.plot')].map(it => [it.getBoundingClientRect().height > 50, it.querySelectorAll('path').length > 1])";
            let drawn = browser.evaluate(drawn);
            let drawn = drawn.as_array().expect("plots");
            assert_eq!(drawn.len(), 6 + 2, "{what}");
            assert!(
                drawn
                    .iter()
                    .all(|it| *it == serde_json::json!([true, true])),
                "{what}: {drawn:?}"
            );
            let letters = browser.evaluate("Math.min(...[...document.querySelectorAll('svg text:not(.letter)')].map(it => parseFloat(getComputedStyle(it).fontSize)))");
            assert!(
                letters.as_f64().is_some_and(|size| size >= 11.0),
                "{what}: {letters}"
            );
            assert_eq!(complaints(&browser), Vec::<&Value>::new(), "{what}");
            if let Some(keep) = &keep {
                let picture = browser.screenshot();
                fs::write(keep.join(format!("{width}-{scheme}.png.base64")), picture)
                    .expect("room");
            }
        }
    }
}

#[test]
fn two_hundred_processes_and_six_hundred_tests_open_in_a_second() {
    let home = Home::new();
    let file = picture(&home, 200, 600);
    let bytes = fs::metadata(&file).expect("there").len();
    assert!(bytes < 2_000_000, "{bytes} bytes");
    let mut browser = Browser::start();
    let began = Instant::now();
    browser.open(&file, (1280, 900), "light");
    // Laid out and painted, not only read.
    browser.evaluate(
        "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))",
    );
    let took = began.elapsed();
    let own = browser.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd");
    println!(
        "{bytes} bytes, on the screen after {} ms, loaded by the browser's clock after {own} ms",
        took.as_millis()
    );
    assert!(took < OPENS_WITHIN, "{took:?}");
    assert_eq!(complaints(&browser), Vec::<&Value>::new());
    // Unfolded it is still in its width.
    browser.evaluate("document.querySelectorAll('details').forEach(it => it.open = true)");
    assert_eq!(
        browser.evaluate("document.scrollingElement.scrollWidth"),
        1280
    );
}
