//! The picture in a real browser: it renders whole, offline, legibly, in light and dark, on a screen and a phone.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use memwatch::incident::Record;
use serde_json::{Value, json};

use super::browser::Browser;
use super::commands::Home;
use super::storm::storm;

/// The promise is a second; a machine that runs other tests beside is given more.
const OPENS_WITHIN: Duration = Duration::from_secs(10);

fn picture(home: &Home, name: &str, record: &Record) -> PathBuf {
    let report = home.path().join(format!("{name}.json"));
    fs::write(&report, record.to_json()).expect("room");
    let file = home.path().join(format!("{name}.html"));
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
    let usual = storm(12, 80);
    // Most of it lies before what was recorded.
    let mut long = storm(12, 80);
    let hour = 3_600_000_000;
    long.duration_us += hour;
    let flight = long.flight.as_mut().expect("looks");
    flight.began_us -= hour;
    for it in &mut long.interventions {
        it.at_us += hour;
        it.rungs.iter_mut().for_each(|rung| rung.at_us += hour);
    }
    for (n, test) in long
        .suite
        .as_mut()
        .expect("tests")
        .tests
        .iter_mut()
        .enumerate()
    {
        test.at_us += hour * (n as u64 % 3) / 2;
    }
    let mut browser = Browser::start();
    for (name, record, plots) in [("usual", usual, 6 + 2), ("long", long, 6 + 2)] {
        let file = picture(&home, name, &record);
        for size in [(1280, 900), (390, 844)] {
            for scheme in ["light", "dark"] {
                browser.open(&file, size, scheme);
                is_legible(&mut browser, size.0, scheme, plots);
                let keep = std::env::var_os("MEMWATCH_TEST_SCREENSHOTS").map(PathBuf::from);
                if let Some(keep) = keep {
                    let picture = browser.screenshot();
                    let file = keep.join(format!("{name}-{}-{scheme}.png.base64", size.0));
                    fs::write(file, picture).expect("room");
                }
            }
        }
    }
}

fn is_legible(browser: &mut Browser, width: u32, scheme: &str, plots: usize) {
    let what = format!("{width} pixels, {scheme}");
    browser.evaluate("document.querySelectorAll('details').forEach(it => it.open = true)");
    let wide = browser.evaluate("document.scrollingElement.scrollWidth");
    assert_eq!(wide, width, "{what}: it scrolls sideways");
    let background = browser.evaluate("getComputedStyle(document.body).backgroundColor");
    let is_light = background == "rgb(255, 255, 255)";
    assert_eq!(is_light, scheme == "light", "{what}: {background}");
    assert_eq!(browser.evaluate(OVERLAPS), json!([]), "{what}");
    assert_eq!(browser.evaluate(FAINT), json!([]), "{what}");
    // Every curve is drawn where it can be seen.
    let drawn = browser.evaluate(
        "[...document.querySelectorAll('svg.plot')].map(it => it.getBoundingClientRect().height > 50 && \
         it.querySelectorAll('path').length > 1)",
    );
    assert_eq!(drawn, json!(vec![true; plots]), "{what}");
    let smallest = browser.evaluate(
        "Math.min(...[...document.querySelectorAll('svg text:not(.letter)')].map(it => \
         parseFloat(getComputedStyle(it).fontSize)))",
    );
    assert!(
        smallest.as_f64().is_some_and(|size| size >= 11.0),
        "{what}: {smallest}"
    );
    assert_eq!(complaints(browser), Vec::<&Value>::new(), "{what}");
}

#[test]
fn two_hundred_processes_and_six_hundred_tests_open_in_a_second() {
    let home = Home::new();
    let file = picture(&home, "large", &storm(200, 600));
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
