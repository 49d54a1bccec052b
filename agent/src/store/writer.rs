//! The thread that writes the store.

use std::{
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    sync::mpsc::Receiver,
};

use redb::{Database, Durability};
use tokio::sync::mpsc::UnboundedSender;

use super::{Error, META, NOTIFICATIONS, ROWS, SCHEMA, classify, encode, meta, move_aside, open};

/// Changes that are written in one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Rows by instance number; `None` removes the row.
    pub rows: Vec<(u32, Option<Vec<u8>>)>,
    /// Notifications by sequence number; `None` removes the notification.
    pub notifications: Vec<(u64, Option<Vec<u8>>)>,
    /// Other values by name.
    pub meta: Vec<(&'static str, Vec<u8>)>,
}

/// The result of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// The group is on disk.
    Done,
    /// The group was not written, for this reason. It can be committed again.
    Failed(String),
    /// The file was lost or damaged and was replaced by an empty one. Neither the group nor any earlier state is on
    /// disk.
    Emptied,
}

pub(super) struct Writer {
    path: PathBuf,
    /// `None` after a failure. The database is opened again for the next group.
    database: Option<Database>,
}

impl Writer {
    pub(super) fn new(path: PathBuf, database: Option<Database>) -> Self {
        Self { path, database }
    }

    pub(super) fn run(mut self, groups: &Receiver<Group>, done: &UnboundedSender<Committed>) {
        while let Ok(group) = groups.recv() {
            let committed = self.attempt(&group);
            // A failed send means that the agent ends.
            let _ = done.send(committed);
        }
    }

    pub(super) fn attempt(&mut self, group: &Group) -> Committed {
        let database = match self.database.take() {
            Some(database) => database,
            None => match self.reopen() {
                Ok((database, false)) => database,
                Ok((database, true)) => {
                    self.database = Some(database);
                    return Committed::Emptied;
                }
                Err(error) => return Committed::Failed(error.to_string()),
            },
        };
        match panic::catch_unwind(AssertUnwindSafe(|| write(&database, group))) {
            Ok(Ok(())) => {
                self.database = Some(database);
                Committed::Done
            }
            Ok(Err(error)) => Committed::Failed(classify(&self.path, error).to_string()),
            Err(_) => Committed::Failed(format!("{}: the database panicked", self.path.display())),
        }
    }

    /// Opens the database again, and returns whether it is a new one.
    fn reopen(&self) -> Result<(Database, bool), Error> {
        match open(&self.path) {
            Ok((database, contents)) => Ok((database, contents.meta.is_empty())),
            Err(error) if error.is_unreadable() => {
                move_aside(&self.path)?;
                Ok((open(&self.path)?.0, true))
            }
            Err(error) => Err(error),
        }
    }
}

fn write(database: &Database, group: &Group) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    // fsync before `commit` returns, so that a power failure loses nothing that clients were told.
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut rows = transaction.open_table(ROWS)?;
        for (instance, row) in &group.rows {
            match row {
                Some(row) => rows.insert(instance, row.as_slice())?,
                None => rows.remove(instance)?,
            };
        }
        let mut notifications = transaction.open_table(NOTIFICATIONS)?;
        for (sequence, notification) in &group.notifications {
            match notification {
                Some(notification) => notifications.insert(sequence, notification.as_slice())?,
                None => notifications.remove(sequence)?,
            };
        }
        let mut values = transaction.open_table(META)?;
        values.insert(meta::SCHEMA, encode(&SCHEMA).as_slice())?;
        for (name, value) in &group.meta {
            values.insert(name, value.as_slice())?;
        }
    }
    transaction.commit()?;
    Ok(())
}
