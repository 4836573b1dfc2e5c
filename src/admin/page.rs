//! The page for browsers: compiled in, without a build step, and loading nothing from elsewhere.

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::answer::{Answer, answer};
use super::negotiate;
use crate::page::{ICON, MAKE, POLICY};

/// Path, content type and content.
const ASSETS: [(&str, &str, &[u8]); 8] = [
    ("/page.css", "text/css; charset=utf-8", include_bytes!("assets/page.css")),
    ("/page.js", "text/javascript; charset=utf-8", include_bytes!("assets/page.js")),
    ("/figures.js", "text/javascript; charset=utf-8", include_bytes!("assets/figures.js")),
    ("/control.js", "text/javascript; charset=utf-8", include_bytes!("assets/control.js")),
    ("/draw.js", "text/javascript; charset=utf-8", include_bytes!("assets/draw.js")),
    ("/make.js", "text/javascript; charset=utf-8", MAKE),
    ("/icon.svg", "image/svg+xml", ICON),
    ("/favicon.ico", "image/svg+xml", ICON),
];

/// What the page is made of, if this path is a part of it.
pub(super) fn asset(path: &str) -> Option<Answer> {
    let (_, kind, content) = ASSETS.into_iter().find(|(name, ..)| *name == path)?;
    Some(guarded(kind, content))
}

/// The page itself.
pub(super) fn page() -> Answer {
    guarded("text/html; charset=utf-8", include_bytes!("assets/page.html"))
}

/// Whether a request with these headers comes from a browser that shows a page.
pub(super) fn is_for(headers: &HeaderMap) -> bool {
    negotiate::names(headers, "text/html")
}

fn guarded(kind: &'static str, content: &'static [u8]) -> Answer {
    const GUARDS: [(HeaderName, &str); 3] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    let mut answer = answer(StatusCode::OK, kind, content.into());
    for (name, value) in GUARDS {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_no_script_and_no_style_of_its_own_and_names_no_other_place() {
        let html = include_str!("assets/page.html");
        for forbidden in ["<style", "style=", " onclick", "javascript:", "http://", "https://", "//cdn"] {
            assert!(!html.contains(forbidden), "{forbidden}");
        }
        for (path, ..) in ASSETS.iter().filter(|(path, ..)| path.ends_with(".js") || path.ends_with(".css")) {
            let text = ASSETS.iter().find(|(name, ..)| name == path).map(|(_, _, text)| String::from_utf8_lossy(text));
            let text = text.expect("it is there").replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("innerHTML"), "{path}");
        }
    }

    #[test]
    fn each_part_has_the_policy() {
        for answer in [Some(page()), asset("/page.js"), asset("/icon.svg")] {
            let answer = answer.expect("it is there");
            assert_eq!(answer.headers()[header::CONTENT_SECURITY_POLICY], POLICY);
            assert_eq!(answer.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        }
        assert!(asset("/page").is_none() && asset("/").is_none());
    }
}
