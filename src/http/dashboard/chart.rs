//! A series of amounts as bars, drawn on the server. A screen reader gets the figures as a sentence.

use maud::{Markup, html};

/// The height of the drawing, and the room of one bar in it.
const HEIGHT: f64 = 100.0;
const ROOM: f64 = 10.0;

/// One bar.
pub(super) struct Bar {
    /// What it stands for, such as an hour.
    pub(super) name: String,
    /// How high it is.
    pub(super) amount: f64,
    /// The part of it that is bad.
    pub(super) bad: f64,
    /// Both in words.
    pub(super) words: String,
}

/// The bars, the first on the left. `most` is the amount of the highest one in words.
pub(super) fn bars(name: &str, bars: &[Bar], most: &str) -> Markup {
    let highest = bars.iter().map(|bar| bar.amount).fold(0.0, f64::max);
    if highest <= 0.0 {
        return html! { p .empty { "nothing yet" } };
    }
    #[expect(clippy::cast_precision_loss, reason = "a few dozen bars")]
    let at = |index: usize| index as f64 * ROOM;
    let height = |amount: f64| amount / highest * (HEIGHT - 4.0);
    let told: Vec<String> =
        bars.iter().filter(|bar| bar.amount > 0.0).map(|bar| format!("{}: {}", bar.name, bar.words)).collect();
    html! {
        svg .chart role="img" aria-label=(format!("{name}. {}", told.join("; ")))
            viewBox=(format!("0 0 {} {HEIGHT}", at(bars.len()))) preserveAspectRatio="none" {
            @for (index, bar) in bars.iter().enumerate() {
                g {
                    title { (bar.name) ": " (bar.words) }
                    rect .bar x=(at(index) + 1.0) width=(ROOM - 2.0) y=(HEIGHT - height(bar.amount))
                        height=(height(bar.amount)) {}
                    @if bar.bad > 0.0 {
                        rect .bar-bad x=(at(index) + 1.0) width=(ROOM - 2.0) y=(HEIGHT - height(bar.bad))
                            height=(height(bar.bad)) {}
                    }
                }
            }
        }
        p .axis aria-hidden="true" {
            span { (bars.first().map_or("", |bar| &bar.name)) }
            span { "at most " (most) }
            span { (bars.last().map_or("", |bar| &bar.name)) }
        }
    }
}
