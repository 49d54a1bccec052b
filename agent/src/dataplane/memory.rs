//! Release of memory that is used only while programs are loaded.

use std::{fs, io, ops::Range, ptr};

/// Returns unused memory to the system after programs are loaded. The kernel's type information alone leaves 19 MB in
/// the allocator's free lists, and most of the agent's code runs only at the start.
pub(super) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` takes a number, releases only free memory of the allocator, and is thread-safe.
    unsafe {
        libc::malloc_trim(0);
    }
    #[cfg(target_env = "musl")]
    // SAFETY: `mi_collect` takes a flag, and releases only free memory of the allocator.
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
    if let Err(error) = forget_text() {
        tracing::debug!(%error, "cannot release the memory of code that is no longer used");
    }
}

/// Releases the pages of the agent's code. Pages that are used again are read from the page cache.
fn forget_text() -> io::Result<()> {
    let program = fs::read_link("/proc/self/exe")?;
    let program = program.to_string_lossy();
    for range in fs::read_to_string("/proc/self/maps")?.lines().filter_map(|line| text_of(line, &program)) {
        // SAFETY: the mapping is not writable, so it contains exactly the bytes of its file. The kernel reads them
        // again when they are used (madvise(2), MADV_DONTNEED).
        unsafe { libc::madvise(ptr::with_exposed_provenance_mut(range.start), range.len(), libc::MADV_DONTNEED) };
    }
    Ok(())
}

/// The address range of a line of `/proc/PID/maps`, if it is code of `program` (proc(5)).
fn text_of(line: &str, program: &str) -> Option<Range<usize>> {
    let rest = line.strip_suffix(program)?;
    let mut fields = rest.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let is_text = fields.next()? == "r-xp" && fields.count() == 3;
    let address = |digits| usize::from_str_radix(digits, 16).ok();
    is_text.then_some(address(start)?..address(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_what_runs_of_this_program_alone() {
        let line = |range: &str, mode: &str, path: &str| format!("{range} {mode} 00226000 fe:00 1835014      {path}");
        let text = |line: String| text_of(&line, "/usr/bin/tr111");
        assert_eq!(text(line("1000-3000", "r-xp", "/usr/bin/tr111")), Some(0x1000..0x3000));
        assert_eq!(text(line("1000-3000", "r--p", "/usr/bin/tr111")), None);
        assert_eq!(text(line("1000-3000", "r-xp", "/lib/libc.so.6")), None);
        assert_eq!(text(line("1000-3000", "r-xp", "/opt /usr/bin/tr111")), None);
        assert_eq!(text("1000-3000 r-xp 00000000 00:00 0".to_owned()), None);
    }

    /// Resident memory of this program's code in KiB (proc(5), smaps).
    fn resident() -> u64 {
        let program = fs::read_link("/proc/self/exe").expect("a /proc");
        let program = program.to_string_lossy();
        let smaps = fs::read_to_string("/proc/self/smaps").expect("a /proc");
        let mut lines = smaps.lines();
        let mut sum = 0;
        while lines.by_ref().any(|line| text_of(line, &program).is_some()) {
            let rss = lines.by_ref().find_map(|line| line.strip_prefix("Rss:")).expect("smaps");
            sum += rss.trim_end_matches("kB").trim().parse::<u64>().expect("a number");
        }
        sum
    }

    #[test]
    fn text_that_is_not_used_is_let_go() {
        let before = resident();
        forget_text().expect("a /proc");
        let after = resident();
        assert!(0 < after && after < before, "{after} of {before} KiB");
    }
}
