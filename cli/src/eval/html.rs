//! A page that stands alone: no script, nothing that is loaded, pictures inside.

use std::fmt::Write as _;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use encoders::{Filter, RgbaPicture};
use pairs::Location;

use super::report::Figures;
use crate::{inputs, walk::Failure};

/// Longest side of a picture, in pixels.
const SIDE: u32 = 160;
/// Failures that are listed.
const MOST_FAILURES: usize = 200;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;\
padding:0 1rem;color:#1b1b1f;background:#fff}h1{font-size:1.5rem}h2{font-size:1.15rem;\
margin-top:2rem}table{border-collapse:collapse}td,th{padding:.2rem 1rem .2rem 0;text-align:left;\
border-bottom:1px solid #ddd;overflow-wrap:anywhere}td.n{font-variant-numeric:tabular-nums}\
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(11rem,1fr));gap:1rem}\
figure{margin:0;border:1px solid #ddd;border-radius:.5rem;padding:.6rem;font-size:.85rem;\
overflow-wrap:anywhere}img{display:block;height:8rem;max-width:100%;object-fit:contain;\
margin:0 auto .5rem}figcaption b{display:block}small{color:#63636b}@media(prefers-color-scheme:\
dark){body{background:#161618;color:#e6e6ea}td,th,figure{border-color:#3a3a40}small{color:#a0a0a8}}";

/// A picture with words below it.
pub struct Card<'a> {
    /// Where it is.
    pub picture: &'a Location,
    /// What matters most.
    pub title: String,
    /// What else there is to say.
    pub lines: Vec<String>,
}

/// A page that grows.
pub struct Page {
    html: String,
}

impl Page {
    /// A page with a title and what was measured.
    pub fn new(title: &str, facts: &[(&str, String)]) -> Self {
        let title = escape(title);
        let mut page = Self {
            html: format!(
                "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
                 <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
                 img-src data:; style-src 'unsafe-inline'\">\
                 <meta name=\"viewport\" content=\"width=device-width\">\
                 <title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
            ),
        };
        let rows: Vec<[String; 2]> = facts
            .iter()
            .map(|(name, value)| [(*name).to_owned(), value.clone()])
            .collect();
        page.rows(&rows);
        page
    }

    /// A table of figures.
    pub fn figures(&mut self, figures: &Figures) {
        self.table(
            "Figures",
            ["metric", "value", "95 percent interval"],
            &figures.rows(),
        );
    }

    /// A table under a heading; nothing when it has no rows.
    pub fn table<const N: usize>(
        &mut self,
        heading: &str,
        header: [&str; N],
        rows: &[[String; N]],
    ) {
        if rows.is_empty() {
            return;
        }
        self.heading(heading);
        self.html.push_str("<table><tr>");
        for cell in header {
            let _ = write!(self.html, "<th>{}</th>", escape(cell));
        }
        self.html.push_str("</tr>\n");
        self.cells(rows);
        self.html.push_str("</table>\n");
    }

    fn rows<const N: usize>(&mut self, rows: &[[String; N]]) {
        self.html.push_str("<table>");
        self.cells(rows);
        self.html.push_str("</table>\n");
    }

    fn cells<const N: usize>(&mut self, rows: &[[String; N]]) {
        for row in rows {
            self.html.push_str("<tr>");
            for cell in row {
                let _ = write!(self.html, "<td class=\"n\">{}</td>", escape(cell));
            }
            self.html.push_str("</tr>\n");
        }
    }

    fn heading(&mut self, text: &str) {
        let _ = writeln!(self.html, "<h2>{}</h2>", escape(text));
    }

    /// Pictures under a heading; nothing when there are none.
    pub fn cards(&mut self, heading: &str, cards: &[Card<'_>]) {
        if cards.is_empty() {
            return;
        }
        self.heading(heading);
        self.html.push_str("<div class=\"cards\">\n");
        for card in cards {
            let name = escape(&card.picture.name());
            let path = escape(&card.picture.to_string());
            let _ = write!(self.html, "<figure title=\"{path}\">");
            if let Some(uri) = thumbnail(card.picture) {
                let _ = write!(self.html, "<img alt=\"{name}\" src=\"{uri}\">");
            }
            let title = escape(&card.title);
            let _ = write!(self.html, "<figcaption><b>{title}</b>");
            for line in &card.lines {
                let _ = write!(self.html, "{}<br>", escape(line));
            }
            let _ = writeln!(self.html, "<small>{name}</small></figcaption></figure>");
        }
        self.html.push_str("</div>\n");
    }

    /// What was left out.
    pub fn failures(&mut self, failed: &[Failure]) {
        let shown = failed.iter().take(MOST_FAILURES);
        let rows: Vec<[String; 2]> = shown.map(|f| [f.path.clone(), f.reason.clone()]).collect();
        let heading = format!("Left out: {}", failed.len());
        self.table(&heading, ["what", "why"], &rows);
    }

    /// The page as a file.
    pub fn finish(mut self) -> String {
        self.html.push_str("</body></html>\n");
        self.html
    }
}

/// Text as HTML shows it, in elements and in quoted attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() => escaped.push(char::REPLACEMENT_CHARACTER),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A small version of a picture as a data URI; `None` where it cannot be read any more.
fn thumbnail(picture: &Location) -> Option<String> {
    let picture = inputs::decode(picture).ok()?;
    let picture = picture.on_white();
    let (width, height) = (picture.width(), picture.height());
    let longest = width.max(height).max(SIDE);
    let side = |n: u32| (u64::from(n) * u64::from(SIDE) / u64::from(longest)).max(1) as u32;
    let small = picture
        .resize(side(width), side(height), Filter::Bicubic)
        .ok()?;
    let pixels = small.as_rgb().chunks_exact(3);
    let rgba = pixels
        .flat_map(|rgb| [rgb[0], rgb[1], rgb[2], 255])
        .collect();
    let png = RgbaPicture::new(small.width(), small.height(), rgba)
        .ok()?
        .to_png();
    Some(format!(
        "data:image/png;base64,{}",
        BASE64_STANDARD.encode(png)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_user_named_becomes_markup() {
        let evil = "<script>alert('x')</script>\"&\u{7}";
        let mut page = Page::new(evil, &[("data", evil.to_owned())]);
        page.table(evil, [evil], &[[evil.to_owned()]]);
        let picture = &Location::File("a\"><img onerror=x src=y>.png".into());
        page.cards(
            evil,
            &[Card {
                picture,
                title: evil.into(),
                lines: vec![evil.into()],
            }],
        );
        let failure = Failure {
            path: evil.into(),
            reason: evil.into(),
        };
        page.failures(&[failure]);
        let html = page.finish();
        assert!(!html.contains("<script") && !html.contains("<img") && !html.contains('\u{7}'));
        assert!(html.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;"));
        assert!(html.contains("title=\"a&quot;&gt;&lt;img"));
    }
}
