//! The user that workers run as.

use std::fmt;
use std::str::FromStr;

/// The user that workers run as, and its group if it is not the user's own: names or numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkersUser {
    /// The user.
    pub user: String,
    /// The group.
    pub group: Option<String>,
}

/// Why a text names no user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write NAME or NAME:GROUP, such as app or app:www-data")]
pub struct WorkersUserError;

impl FromStr for WorkersUser {
    type Err = WorkersUserError;

    fn from_str(text: &str) -> Result<Self, WorkersUserError> {
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        let is_name = |name: &str| !name.is_empty() && !name.contains([':', '\0', '/']);
        if !is_name(user) || !group.is_none_or(is_name) {
            return Err(WorkersUserError);
        }
        Ok(Self { user: user.to_owned(), group: group.map(str::to_owned) })
    }
}

impl fmt::Display for WorkersUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.user)?;
        self.group.as_ref().map_or(Ok(()), |group| write!(f, ":{group}"))
    }
}
