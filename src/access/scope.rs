//! What a principal may do.

use std::fmt;

/// What a principal may do. No scope implies another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Publish events.
    Publish,
    /// Read events, counters and topics.
    Read,
    /// Receive from subscriptions.
    Consume,
    /// Make and revoke keys.
    Manage,
    /// Read the metrics.
    Metrics,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Publish, Self::Read, Self::Consume, Self::Manage, Self::Metrics];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Consume => "consume",
            Self::Manage => "manage",
            Self::Metrics => "metrics",
        }
    }

    /// The scope with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Some scopes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// None.
    pub const NONE: Self = Self(0);
    /// All.
    pub const ALL: Self = Self((1 << Scope::ALL.len()) - 1);

    /// Whether a scope is one of them.
    pub fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Whether all of `other` are among them.
    pub fn covers(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.has(*scope))
    }

    /// Reads names between commas or blanks; `None`: one of them is no scope.
    pub fn parse(text: &str) -> Option<Self> {
        let names = text.split([',', ' ']).filter(|name| !name.is_empty());
        names.map(Scope::parse).collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Scope::name).collect();
        f.pad(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_read_as_they_are_written() {
        assert_eq!(Scopes::parse("read, publish").unwrap().to_string(), "publish,read");
        assert_eq!(Scopes::parse(""), Some(Scopes::NONE));
        assert_eq!(Scopes::parse(&Scopes::ALL.to_string()), Some(Scopes::ALL));
        for wrong in ["Read", "reads", "read;publish", "*"] {
            assert_eq!(Scopes::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn no_scope_implies_another() {
        for scope in Scope::ALL {
            let alone = Scopes::from_iter([scope]);
            assert_eq!(alone.iter().collect::<Vec<_>>(), [scope]);
            assert!(Scopes::ALL.covers(alone) && alone.covers(Scopes::NONE) && !alone.covers(Scopes::ALL));
        }
    }
}
