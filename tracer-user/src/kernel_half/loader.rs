//! The object's loader, made ahead of its use. aya's reads all of the kernel's type information when it is made, whether an object
//! needs it or not (ours does not), and asks the kernel for its features: a third of the time that a start takes, on a thread of
//! its own while the host is looked at. The thread also takes the memory of it along when it ends.

use super::{BpfError, OBJECT, diagnosis, loaded::KernelHalf, preemption, sizes::Sizes};
use aya::{EbpfLoader, VerifierLogLevel};
use std::thread::JoinHandle;
use tracer_common::{layout::KernelLayout, settings::Settings};

/// A loader in the making.
pub struct Loader(JoinHandle<EbpfLoader<'static>>);

impl Loader {
    /// Begins to make it.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn prepare() -> Result<Loader, BpfError> {
        let make = || {
            let _features = aya::features();
            let mut loader = EbpfLoader::new();
            loader.btf(None);
            loader
        };
        let thread = std::thread::Builder::new().name("memtrail-load".into()).spawn(make);
        thread.map(Loader).map_err(BpfError::Thread)
    }

    /// Loads the object with its settings and table sizes; nothing is attached yet.
    ///
    /// # Errors
    /// The kernel's.
    pub fn load(self, layout: &KernelLayout, settings: &Settings, sizes: &Sizes) -> Result<KernelHalf, BpfError> {
        let made = self.0.join().map_err(|_| BpfError::LoaderPanicked)?;
        // Shorter-lived than 'static from here on: it borrows the settings.
        let mut loader: EbpfLoader<'_> = made;
        // aya asks for the log only after a refusal: a load that works pays nothing for it.
        loader.verifier_log_level(VerifierLogLevel::DEBUG);
        let told = diagnosis::aya_level(settings.diagnose != 0);
        loader.override_global("LAYOUT", layout, true).override_global("SETTINGS", settings, true);
        let stat_offsets = layout.stat_offsets();
        loader.override_global("STAT_OFFSETS", &stat_offsets, true);
        loader.override_global(aya_log::LEVEL, &told, true);
        for (table, entries) in sizes.entries() {
            loader.map_max_entries(table.name(), entries);
        }
        Ok(KernelHalf::new(loader.load(&preemption::named(OBJECT, layout))?))
    }
}
