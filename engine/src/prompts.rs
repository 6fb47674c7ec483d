//! Labels put into sentences, from which a zero-shot head is made.

use std::collections::HashSet;

use embedding::{Embedding, Scoring, Space};

use crate::{EngineError, Head};

/// CLIP's own prompt ensemble (Radford et al. 2021, section 3.1.4), one a line.
const CLIP_TEMPLATES: &str = include_str!("prompts/clip_templates.txt");

/// Where the label goes in a template.
const SLOT: &str = "{}";

/// Most bytes of all prompts of one head. Labels and templates multiply: without a bound on their
/// product, short lists would make more text than fits into memory.
const MAX_PROMPT_BYTES: usize = 4 << 20;

/// Every label in every template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompts {
    labels: Vec<String>,
    templates: Vec<String>,
    /// `[labels][templates]`, row after row.
    texts: Vec<String>,
}

impl Prompts {
    /// The bare label and the plainest sentence; more templates help large models a little.
    pub const DEFAULT_TEMPLATES: [&str; 2] = [SLOT, "a photo of {}"];

    /// The ensemble of 80 that CLIP was measured with on `ImageNet`.
    pub fn clip_templates() -> Vec<String> {
        CLIP_TEMPLATES.lines().map(str::to_owned).collect()
    }

    /// Puts each label into each template; without templates into [`Self::DEFAULT_TEMPLATES`].
    ///
    /// # Errors
    /// [`EngineError::BadPrompt`] when there is no label or no template, a label is blank or occurs
    /// twice, or a template does not have exactly one `{}`; [`EngineError::PromptsTooLarge`] when
    /// all prompts together would be.
    pub fn new(labels: Vec<String>, templates: Option<Vec<String>>) -> Result<Self, EngineError> {
        let templates =
            templates.unwrap_or_else(|| Self::DEFAULT_TEMPLATES.map(str::to_owned).to_vec());
        check_labels(&labels)?;
        check_templates(&templates)?;
        let bytes = |texts: &[String]| texts.iter().map(String::len).sum::<usize>();
        let fixed = bytes(&templates) - templates.len() * SLOT.len();
        // An overflow is certainly too large.
        let bytes = (bytes(&labels).saturating_mul(templates.len()))
            .saturating_add(fixed.saturating_mul(labels.len()));
        if bytes > MAX_PROMPT_BYTES {
            return Err(EngineError::PromptsTooLarge {
                bytes,
                max: MAX_PROMPT_BYTES,
            });
        }
        let fill = |label: &String| -> Vec<String> {
            templates.iter().map(|t| t.replace(SLOT, label)).collect()
        };
        let texts = labels.iter().flat_map(fill).collect();
        Ok(Self {
            labels,
            templates,
            texts,
        })
    }

    /// The templates that the labels were put into.
    pub fn templates(&self) -> &[String] {
        &self.templates
    }

    /// What is to be encoded: all prompts of the first label, then those of the next.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// The head that `embeddings` make, one for each of [`Self::texts`].
    ///
    /// # Errors
    /// As [`Head::zero_shot`].
    pub fn head(
        self,
        space: Space,
        embeddings: &[Embedding],
        scoring: Scoring,
    ) -> Result<Head, EngineError> {
        let rows = embeddings.chunks(self.templates.len());
        let per_label: Vec<_> = rows.map(<[Embedding]>::to_vec).collect();
        Head::zero_shot(space, self.labels, &per_label, scoring)
    }
}

fn check_labels(labels: &[String]) -> Result<(), EngineError> {
    if labels.is_empty() {
        return Err(bad("labels", "there is no label".into()));
    }
    let mut seen = HashSet::new();
    for (i, label) in labels.iter().enumerate() {
        let field = || format!("labels[{i}]");
        if label.trim().is_empty() {
            return Err(bad(field(), "the label is empty".into()));
        }
        if !seen.insert(label) {
            return Err(bad(field(), format!("label {label:?} is given twice")));
        }
    }
    Ok(())
}

fn check_templates(templates: &[String]) -> Result<(), EngineError> {
    if templates.is_empty() {
        return Err(bad("templates", "there is no template".into()));
    }
    for (i, template) in templates.iter().enumerate() {
        let slots = template.matches(SLOT).count();
        if slots != 1 {
            let reason = format!(
                "the template {template:?} has {slots} times {SLOT}, expected it once, \
                 where the label goes"
            );
            return Err(bad(format!("templates[{i}]"), reason));
        }
    }
    Ok(())
}

fn bad(field: impl Into<String>, reason: String) -> EngineError {
    EngineError::BadPrompt {
        field: field.into(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(labels: &[&str], templates: &[&str]) -> Result<Prompts, EngineError> {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        Prompts::new(owned(labels), Some(owned(templates)))
    }

    #[test]
    fn every_label_is_put_into_every_template_label_by_label() {
        let all = prompts(&["cat", "{}"], &["{}", "a {}!"]).expect("fine");
        assert_eq!(all.texts(), ["cat", "a cat!", "{}", "a {}!"]);
        let plain = Prompts::new(vec!["cat".into()], None).expect("fine");
        assert_eq!(plain.texts(), ["cat", "a photo of cat"]);
        assert_eq!(plain.templates(), Prompts::DEFAULT_TEMPLATES);
    }

    #[test]
    fn the_templates_of_clip_are_eighty_that_differ() {
        let templates = Prompts::clip_templates();
        let distinct: HashSet<&String> = templates.iter().collect();
        assert_eq!((templates.len(), distinct.len()), (80, 80));
        assert!(Prompts::new(vec!["cat".into()], Some(templates)).is_ok());
    }

    #[test]
    fn a_template_has_exactly_one_place_for_the_label() {
        for (templates, expected) in [
            (&["a photo"][..], "templates[0]"),
            (&["{}", "{} and {}"], "templates[1]"),
            (&[], "templates"),
        ] {
            match prompts(&["cat"], templates) {
                Err(EngineError::BadPrompt { field, .. }) => assert_eq!(field, expected),
                other => panic!("{templates:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn labels_are_distinct_and_not_blank() {
        for (labels, expected) in [
            (&["cat", " "][..], "labels[1]"),
            (&["cat", "dog", "cat"], "labels[2]"),
            (&[], "labels"),
        ] {
            match prompts(labels, &["{}"]) {
                Err(EngineError::BadPrompt { field, .. }) => assert_eq!(field, expected),
                other => panic!("{labels:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_product_of_labels_and_templates_is_bounded_exactly() {
        let long = "a".repeat(MAX_PROMPT_BYTES - 4);
        let fits = prompts(&[&long, "b"], &["{}.", "{}"]).map(drop);
        assert!(matches!(
            fits,
            Err(EngineError::PromptsTooLarge { bytes, .. }) if bytes == 2 * MAX_PROMPT_BYTES - 4
        ));
        assert!(prompts(&[&long, "b"], &["{}."]).is_ok());
        assert!(prompts(&[&long, "bb"], &["{}."]).is_ok_and(|p| {
            p.texts().iter().map(String::len).sum::<usize>() == MAX_PROMPT_BYTES
        }));
        assert!(prompts(&[&long, "bbb"], &["{}."]).is_err());
    }
}
