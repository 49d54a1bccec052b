//! Tests of the store with real files.

use std::{fs, os::unix::fs::PermissionsExt};

use super::*;

fn group(instance: u32, row: &[u8]) -> Group {
    let meta = vec![(meta::NEXT_INSTANCE, encode(&(instance + 1)))];
    Group { rows: vec![(instance, Some(row.to_vec()))], meta, ..Group::default() }
}

fn contents(directory: &Path) -> (Store, Contents) {
    Store::open(directory, Ok).expect("opens")
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_restart_and_what_was_taken_away_is_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("state");
    let (store, found) = contents(&path);
    assert_eq!(found, Contents::default());
    for instance in [1, 2] {
        store.commit(group(instance, b"row"));
        assert_eq!(store.committed().await, Committed::Done);
    }
    store.commit(Group { rows: vec![(1, None)], ..Group::default() });
    assert_eq!(store.committed().await, Committed::Done);
    drop(store);
    let (_store, found) = contents(&path);
    assert_eq!(found.rows, [(2, b"row".to_vec())]);
    assert_eq!(found.meta::<u32>(meta::NEXT_INSTANCE), Ok(Some(3)));
}

#[tokio::test]
async fn what_was_handed_in_before_the_end_is_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = contents(directory.path());
    store.commit(group(7, b"last"));
    drop(store);
    assert_eq!(contents(directory.path()).1.rows, [(7, b"last".to_vec())]);
}

#[test]
fn the_directory_is_made_for_its_owner_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a/b");
    let (_store, _) = contents(&path);
    let mode = fs::metadata(&path).expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn the_file_is_for_its_owner_alone_in_a_directory_that_keeps_its_mode() {
    let directory = tempfile::tempdir().expect("a directory");
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mine");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o7777;
    set(directory.path(), 0o755);
    drop(contents(directory.path()));
    let file = directory.path().join(FILE);
    assert_eq!((mode(directory.path()), mode(&file)), (0o755, 0o600));
    // Earlier versions created the file with the permissions of the umask.
    set(&file, 0o644);
    drop(contents(directory.path()));
    assert_eq!(mode(&file), 0o600);
}

#[test]
fn a_directory_into_which_others_may_write_is_refused_with_the_reason_and_stays_as_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    for mode in [0o1777, 0o777, 0o702] {
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).expect("mine");
        let error = Store::open(directory.path(), Ok).expect_err("writable").to_string();
        assert!(error.contains("everybody") && error.contains(&format!("{mode:03o}")), "{error}");
        let after = fs::metadata(directory.path()).expect("there").permissions().mode();
        assert_eq!(after & 0o7777, mode);
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 0);
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_named_with_the_flag_that_changes_it() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let error = Store::open(&file.path().join("state"), Ok).expect_err("below a file").to_string();
    assert!(error.contains("--state-dir") && error.contains(&file.path().display().to_string()), "{error}");
}

#[test]
fn a_second_agent_is_told_that_the_store_is_in_use() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_store, _) = contents(directory.path());
    assert!(matches!(Store::open(directory.path(), Ok), Err(Error::InUse { .. })));
}

fn aside(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("readable").map(|entry| entry.expect("readable").path());
    entries.filter(|path| path.to_string_lossy().contains(".redb.damaged-")).collect()
}

#[tokio::test]
async fn a_damaged_file_is_moved_aside_whole_and_the_store_starts_empty() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = contents(directory.path());
    for instance in 1..200 {
        store.commit(group(instance, &[instance as u8; 300]));
        assert_eq!(store.committed().await, Committed::Done);
    }
    drop(store);
    let path = directory.path().join(FILE);
    let whole = fs::read(&path).expect("readable");
    // Kinds of damage: no database at all, a truncated file, and bytes changed in its pages.
    let mut scribbled = whole.clone();
    let middle = scribbled.len() / 64;
    scribbled[middle..].iter_mut().step_by(97).for_each(|byte| *byte ^= 0x5a);
    for damaged in [Vec::new(), b"no database".repeat(1_000), whole[..whole.len() / 3].to_vec(), scribbled] {
        for old in aside(directory.path()) {
            fs::remove_file(old).expect("removable");
        }
        fs::write(&path, &damaged).expect("writable");
        let (store, found) = contents(directory.path());
        assert_eq!(found, Contents::default());
        assert!(store.relearned().is_some_and(|reason| reason.contains(".damaged-")), "{:?}", store.relearned());
        let [kept] = aside(directory.path()).try_into().expect("one file aside");
        assert_eq!(fs::read(kept).expect("readable").len(), damaged.len());
        store.commit(group(1, b"learned anew"));
        assert_eq!(store.committed().await, Committed::Done);
    }
}

#[test]
fn contents_that_the_agent_cannot_read_are_moved_aside_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = contents(directory.path());
    store.commit(group(1, &[99, 1, 2]));
    drop(store);
    let mut calls = 0;
    let opened = Store::open(directory.path(), |contents| {
        calls += 1;
        contents.rows.iter().try_for_each(|(_, row)| decode::<u32>(row).map(drop))
    });
    opened.expect("opens empty");
    assert_eq!((calls, aside(directory.path()).len()), (2, 1));
}

#[tokio::test]
async fn a_file_that_is_lost_while_the_agent_runs_is_told_and_made_anew() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(FILE);
    let database = open(&path).expect("opens").0;
    // As after a failed write: the database must be opened again, and the file does not exist.
    drop(database);
    fs::remove_file(&path).expect("removable");
    let mut writer = writer::Writer::new(path, None);
    assert_eq!(writer.attempt(&group(1, b"row")), Committed::Emptied);
    assert_eq!(writer.attempt(&group(1, b"row")), Committed::Done);
}

/// Root can write to a file of mode 0400, so the failure is caused by a directory in place of the database's file.
#[tokio::test]
async fn a_store_that_cannot_be_written_is_a_failure_each_time_until_it_can() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(FILE);
    fs::create_dir(&path).expect("made");
    let mut writer = writer::Writer::new(path.clone(), None);
    for _ in 0..2 {
        let Committed::Failed(reason) = writer.attempt(&group(1, b"row")) else { panic!("written?") };
        assert!(reason.contains(FILE), "{reason}");
    }
    fs::remove_dir(&path).expect("removable");
    assert_eq!(writer.attempt(&group(1, b"row")), Committed::Emptied);
    assert_eq!(writer.attempt(&group(1, b"row")), Committed::Done);
}

#[test]
fn instants_are_kept_within_a_boot_and_go_by_unix_time_after_a_reboot() {
    const SECOND: u64 = 1_000_000_000;
    let boot = |id: &str, unix: u64| Boot { id: id.to_owned(), unix: unix * SECOND };
    let boots = Boots::from([(1, boot("a", 1_000)), (2, boot("b", 5_000))]);
    let now = boot("b", 9_000);
    let times = Times::new(&boots, &now);
    let at = |seconds: u64| tr111_core::time::BootTime(seconds * SECOND);
    // The same boot, although the system time was set meanwhile (T-31).
    assert_eq!(times.translate(2, at(70)), at(70));
    // Another boot: 8,500 s after its start at 1,000 are 500 s after 9,000.
    assert_eq!(times.translate(1, at(8_500)), at(500));
    assert_eq!(times.translate(1, at(10)), at(0));
    assert_eq!(times.translate(1, tr111_core::time::BootTime::NEVER), tr111_core::time::BootTime::NEVER);
}

/// T-31, T-56: after a reboot with a clock that is years behind, a lease does not last longer than before.
#[test]
fn a_lease_is_no_longer_after_a_reboot_with_a_clock_that_is_behind() {
    const SECOND: u64 = 1_000_000_000;
    let boot = |id: &str, unix: u64| Boot { id: id.to_owned(), unix: unix * SECOND };
    let lease = |times: [u64; 3]| times.map(|seconds| tr111_core::time::BootTime(seconds * SECOND));
    let boots = Boots::from([(1, boot("a", 1_800_000_000)), (2, boot("b", 50))]);
    let kept = lease([5_300, 5_525, 5_600]);
    for (unix, expected) in [
        // The clock is correct: the machine booted again 100 s after the last ACK.
        (1_800_005_100, [200, 425, 500]),
        // The clock says 1970.
        (50, [300, 525, 600]),
        // The clock is ahead.
        (1_900_000_000, [0, 0, 0]),
    ] {
        let now = boot("c", unix);
        assert_eq!(Times::new(&boots, &now).translate_lease(1, kept), lease(expected), "{unix}");
    }
    // The same boot, whatever the clock says.
    let now = boot("b", 1_800_000_000);
    assert_eq!(Times::new(&boots, &now).translate_lease(2, kept), kept);
    let never = [tr111_core::time::BootTime::NEVER; 3];
    assert_eq!(Times::new(&boots, &boot("c", 50)).translate_lease(1, never), never);
}
