//! README.md stays a front page, and the links of the documents work.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::process::workspace_root;

/// Text by file: the documents in the root of the repository and in `docs/`.
fn documents() -> BTreeMap<PathBuf, String> {
    let root = workspace_root();
    let entries = ["", "docs"].into_iter().flat_map(|name| fs::read_dir(root.join(name)).expect("a directory"));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let documents = paths.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    documents.map(|path| (path.clone(), fs::read_to_string(path).expect("a text"))).collect()
}

/// Targets of the links in `text`, those to other sites left out.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
    targets.filter(|target| !target.contains("://"))
}

/// Anchors of the headings in `text`, as GitHub makes them.
fn anchors(text: &str) -> impl Iterator<Item = String> {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    headings.map(|heading| {
        let kept = heading.chars().filter(|character| character.is_alphanumeric() || " -_".contains(*character));
        kept.map(|character| if character == ' ' { '-' } else { character.to_ascii_lowercase() }).collect::<String>()
    })
}

#[test]
fn the_front_page_is_short_and_links_every_document() {
    let root = workspace_root();
    let documents = documents();
    let front = &documents[&root.join("README.md")];
    assert!(front.lines().count() <= 130, "{} lines", front.lines().count());
    for path in documents.keys().filter(|path| path.starts_with(root.join("docs"))) {
        let name = path.strip_prefix(&root).expect("a file of the workspace").display().to_string();
        assert!(links(front).any(|target| target == name), "README.md has no link to {name}");
    }
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    for (path, text) in &documents() {
        for target in links(text) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let at = match file {
                "" => path.clone(),
                file => path.parent().unwrap_or(Path::new("/")).join(file),
            };
            assert!(at.exists(), "{}: {target}", path.display());
            if !anchor.is_empty() {
                let linked = fs::read_to_string(&at).expect("a text");
                assert!(anchors(&linked).any(|there| there == anchor), "{}: {target}", path.display());
            }
        }
    }
}
