//! Symbols that are looked for when a report is made: of files that were stripped where they ran.

use super::patience::Patience;
use crate::{
    analyse::naming::{self, Functions},
    report::Report,
    symbols::{DebugFiles, NotNamed},
    text,
};
use anyhow::{Context as _, Result, ensure};
use std::path::PathBuf;

/// Files without names that are told of one by one.
const MOST_TOLD: usize = 5;

/// Where functions without names are looked for.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SymbolArgs {
    /// Look for symbols of files that were stripped in this directory, by build id: debug files, or the programs before they were
    /// stripped. May be given again.
    #[arg(long, value_name = "DIR")]
    pub symbols: Vec<PathBuf>,
    /// Ask the servers of DEBUGINFOD_URLS for them, too. They learn the build ids of what ran here.
    #[arg(long)]
    pub debuginfod: bool,
}

impl SymbolArgs {
    /// Whether they can be used.
    ///
    /// # Errors
    /// A directory that is none, and no servers to ask.
    pub fn check(&self) -> Result<()> {
        for directory in &self.symbols {
            let metadata = std::fs::metadata(directory).with_context(|| format!("--symbols {}", directory.display()))?;
            ensure!(metadata.is_dir(), "--symbols {}: not a directory", directory.display());
        }
        let has_servers = std::env::var_os("DEBUGINFOD_URLS").is_some_and(|urls| !urls.is_empty());
        ensure!(!self.debuginfod || has_servers, "--debuginfod asks the servers of DEBUGINFOD_URLS, which is not set");
        Ok(())
    }

    /// Names what has no name in a report, as far as symbols are found, and says of what they are not.
    pub fn name(&self, report: &mut Report) {
        if self.symbols.is_empty() && !self.debuginfod {
            return;
        }
        let unnamed = naming::unnamed(report);
        let mut files = DebugFiles::new(self.symbols.clone(), self.debuginfod);
        let (mut functions, mut missing) = (Functions::new(), Vec::new());
        for file in &unnamed {
            let _patience = Patience::with(&format!("looking for symbols of {}", file.path));
            let offsets: Vec<u64> = file.offsets.iter().copied().collect();
            match files.functions(&file.build_id, &file.code, &offsets) {
                Ok(found) => {
                    let named = offsets.iter().zip(found).filter_map(|(offset, names)| Some(((file.build_id.clone(), *offset), names?)));
                    functions.extend(named);
                }
                Err(error) => {
                    let is_last = matches!(error, NotNamed::Client(_));
                    missing.push((file, error));
                    if is_last {
                        break;
                    }
                }
            }
        }
        let named = naming::name(report, &functions);
        log::info!("{named} places have names by symbols that were looked for");
        for (file, error) in missing.iter().take(MOST_TOLD) {
            eprintln!("memtrail: {} (build id {}) has no names: {error}", text::escape(&file.path), file.build_id);
        }
        if let Some(more) = missing.len().checked_sub(MOST_TOLD).filter(|more| *more > 0) {
            eprintln!("memtrail: {more} more files have no names");
        }
    }
}
