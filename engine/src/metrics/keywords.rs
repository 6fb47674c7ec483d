//! Keywords as queries: does a model know what things are about, beyond what they are called?

use std::collections::BTreeMap;

/// Every keyword that says more than a name does, and the positions of the items that bear it. A
/// keyword that is part of the name of an item that bears it, word by word and in any case, is none:
/// whoever knows the name finds it. `items` are names with their keywords.
pub fn keyword_queries<'a>(
    items: impl IntoIterator<Item = (&'a str, &'a [String])>,
) -> BTreeMap<&'a str, Vec<usize>> {
    let mut bearers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut names: Vec<Vec<String>> = Vec::new();
    for (i, (name, keywords)) in items.into_iter().enumerate() {
        names.push(words(name));
        for keyword in keywords {
            let bearers = bearers.entry(keyword).or_default();
            if bearers.last() != Some(&i) {
                bearers.push(i);
            }
        }
    }
    bearers.retain(|keyword, bearers| {
        let keyword = words(keyword);
        let is_in = |name: &Vec<String>| name.windows(keyword.len()).any(|part| part == keyword);
        !keyword.is_empty() && !bearers.iter().any(|i| is_in(&names[*i]))
    });
    bearers
}

/// Runs of letters and digits in lower case.
fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric());
    words
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyword_that_a_bearer_is_called_is_no_query() {
        let items = [
            ("red heart", &["love", "Heart", "hear"][..]),
            ("flag: Norway", &["north", "love", "norway", "!"]),
            ("heart on fire", &["burn", "heart on", "fire heart", "red"]),
        ];
        let items = items.map(|(name, tags)| (name, tags.iter().map(|t| (*t).to_owned())));
        let items = items.map(|(name, tags)| (name, tags.collect::<Vec<_>>()));
        let queries = keyword_queries(items.iter().map(|(name, tags)| (*name, &tags[..])));
        let queries: Vec<_> = queries.into_iter().collect();
        assert_eq!(
            queries,
            [
                ("burn", vec![2]),
                ("fire heart", vec![2]),
                ("hear", vec![0]),
                ("love", vec![0, 1]),
                ("north", vec![1]),
                ("red", vec![2]),
            ]
        );
    }
}
