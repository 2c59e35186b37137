//! The text format of Prometheus, version 0.0.4, for scrapers and people that do not ask for OpenMetrics.

use std::fmt::Write as _;

/// What a page in this format is called.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page of OpenMetrics in this format: families are named as their samples are, and facts are gauges.
pub(super) fn of(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    let mut help = None;
    for line in page.lines() {
        if let Some(told) = line.strip_prefix("# HELP ") {
            help = told.split_once(' ');
        } else if let Some(told) = line.strip_prefix("# TYPE ") {
            let (name, kind) = told.split_once(' ').unwrap_or((told, "unknown"));
            let (ending, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "gauge" | "histogram" | "summary" => ("", kind),
                _ => ("", "untyped"),
            };
            if let Some((_, words)) = help.take().filter(|(of, _)| *of == name) {
                let _ = writeln!(text, "# HELP {name}{ending} {words}");
            }
            let _ = writeln!(text, "# TYPE {name}{ending} {kind}");
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn families_have_the_names_of_their_samples() {
        let page = "# HELP a_b Of b.\n# TYPE a_b counter\na_b_total{c=\"# EOF\"} 1\n# HELP d It is.\n# TYPE d info\n\
                    d_info{v=\"1\"} 1\n# HELP e Now.\n# TYPE e gauge\n# UNIT e seconds\ne 0.5\n# TYPE f histogram\n\
                    f_bucket{le=\"+Inf\"} 1\nf_sum 1\nf_count 1\n# TYPE g unknown\ng 1\n# EOF\n";
        assert_eq!(
            super::of(page),
            "# HELP a_b_total Of b.\n# TYPE a_b_total counter\na_b_total{c=\"# EOF\"} 1\n# HELP d_info It is.\n\
             # TYPE d_info gauge\nd_info{v=\"1\"} 1\n# HELP e Now.\n# TYPE e gauge\ne 0.5\n# TYPE f histogram\n\
             f_bucket{le=\"+Inf\"} 1\nf_sum 1\nf_count 1\n# TYPE g untyped\ng 1\n"
        );
    }
}
