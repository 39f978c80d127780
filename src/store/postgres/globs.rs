//! Patterns of topics, as statements have them.

use crate::event::TopicGlobs;

/// So many topics at most are read each by its index; of more, the log is read, and the rest left out.
pub(crate) const MERGED_TOPICS_MAX: u32 = 1000;

/// The patterns of some topics; `None`: every topic.
pub(super) fn likes(globs: &TopicGlobs) -> Option<Vec<String>> {
    let globs = globs.patterns()?;
    Some(globs.iter().map(|glob| glob.like()).collect())
}

/// The ranges of their names: where each begins, and what is below.
pub(super) fn ranges(globs: &TopicGlobs) -> (Vec<String>, Vec<Option<String>>) {
    globs.ranges().into_iter().map(|range| (range.low, range.below)).unzip()
}
