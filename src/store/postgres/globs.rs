//! Patterns of topics, as statements have them.

use crate::event::TopicGlobs;

/// The patterns of some topics; `None`: every topic.
pub(super) fn likes(globs: &TopicGlobs) -> Option<Vec<String>> {
    let globs = globs.patterns()?;
    Some(globs.iter().map(|glob| glob.like()).collect())
}

/// The ranges of their names: where each begins, and what is below.
pub(super) fn ranges(globs: &TopicGlobs) -> (Vec<String>, Vec<Option<String>>) {
    globs.ranges().into_iter().map(|range| (range.low, range.below)).unzip()
}
