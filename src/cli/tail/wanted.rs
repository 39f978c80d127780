//! What to follow.

use crate::client::Client;

/// Which events to follow, and where to report outages.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The service that has them.
    pub(crate) client: Client,
    /// Their topic, if only one is asked for.
    pub(crate) topic: Option<String>,
    /// The cursor that they come behind; without one, what is stored from now on.
    pub(crate) after: Option<String>,
    /// Is given each report, a line for people.
    pub(crate) report: fn(&str),
}
