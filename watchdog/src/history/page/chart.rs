//! One curve over the runs, as SVG within the page: from zero to its largest value, runs at equal steps.

use std::fmt::Write;

use maud::{Markup, html};

/// A run in which there is a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) value: u64,
    pub(super) is_worse: bool,
    pub(super) is_failed: bool,
}

/// The size of a curve, in the units of its own picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chart {
    width: f64,
    height: f64,
    /// Whether zero is drawn.
    has_axis: bool,
}

/// Around the curve, so that a dot on its edge is whole.
const MARGIN: f64 = 4.0;

impl Chart {
    /// Beside a test's name.
    pub(super) const SMALL: Self = Self {
        width: 160.0,
        height: 32.0,
        has_axis: false,
    };
    /// Of the runs as wholes.
    pub(super) const LARGE: Self = Self {
        width: 560.0,
        height: 120.0,
        has_axis: true,
    };

    /// Draws `points`, one for each run; where there is none the curve has a gap.
    pub(super) fn draw(
        self,
        points: &[Option<Point>],
        name: &str,
        shown: impl Fn(u64) -> String,
    ) -> Markup {
        let known = || points.iter().flatten();
        let most = known().map(|point| point.value).max().unwrap_or(0);
        let place = |n: usize, point: &Point| self.place(n, points.len(), point.value, most);
        let label = match (known().next(), known().last()) {
            (Some(first), Some(last)) => {
                format!(
                    "{name} from {} to {}, at most {}",
                    shown(first.value),
                    shown(last.value),
                    shown(most)
                )
            }
            _ => format!("{name}: not known"),
        };
        let marked = points
            .iter()
            .enumerate()
            .filter_map(|(n, point)| Some((n, point.as_ref()?)));
        let last = points.iter().rposition(Option::is_some);
        html! {
            svg viewBox={ "0 0 " (self.width) " " (self.height) } role="img" aria-label=(label) {
                title { (label) }
                @if self.has_axis {
                    line.axis x1="0" x2=(self.width) y1=(self.height - MARGIN) y2=(self.height - MARGIN) {}
                }
                path d=(self.curve(points, most)) {}
                @for (n, point) in marked {
                    @let (x, y) = place(n, point);
                    @if point.is_failed {
                        path.failed d=(cross(x, y)) {}
                    }
                    @if point.is_worse {
                        circle.worse cx=(digits(x)) cy=(digits(y)) r="3.5" {
                            title { (shown(point.value)) }
                        }
                    } @else if Some(n) == last {
                        circle cx=(digits(x)) cy=(digits(y)) r="2" {}
                    }
                }
            }
        }
    }

    fn place(self, n: usize, count: usize, value: u64, most: u64) -> (f64, f64) {
        let steps = count.saturating_sub(1).max(1) as f64;
        let x = MARGIN + (self.width - 2.0 * MARGIN) * n as f64 / steps;
        let share = value as f64 / most.max(1) as f64;
        let room = self.height - 2.0 * MARGIN;
        (x, self.height - MARGIN - room * share)
    }

    /// The path, begun anew after each gap.
    fn curve(self, points: &[Option<Point>], most: u64) -> String {
        let mut path = String::new();
        let mut is_drawing = false;
        for (n, point) in points.iter().enumerate() {
            if let Some(point) = point {
                let (x, y) = self.place(n, points.len(), point.value, most);
                let verb = if is_drawing { 'L' } else { 'M' };
                let _ = write!(path, "{verb}{} {}", digits(x), digits(y));
            }
            is_drawing = point.is_some();
        }
        path
    }
}

fn cross(x: f64, y: f64) -> String {
    let (left, right) = (digits(x - 3.0), digits(x + 3.0));
    let (top, bottom) = (digits(y - 3.0), digits(y + 3.0));
    format!("M{left} {top}L{right} {bottom}M{left} {bottom}L{right} {top}")
}

/// A tenth of a unit is less than a pixel.
fn digits(value: f64) -> String {
    let tenths = (value * 10.0).round() / 10.0;
    tenths.to_string()
}
