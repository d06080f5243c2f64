//! The accuracy table, a test for each row and mode.

use harness::accuracy::{ROWS, row, run_row};
use harness::memtrail::Mode;

macro_rules! rows {
    ($($name:ident: $exact:ident, $default:ident;)*) => {
        $(
            #[test]
            #[ignore = "root"]
            fn $exact() {
                run_row(row(stringify!($name)).unwrap(), Mode::Exact).unwrap();
            }

            #[test]
            #[ignore = "root"]
            fn $default() {
                run_row(row(stringify!($name)).unwrap(), Mode::Default).unwrap();
            }
        )*

        #[test]
        fn every_row_has_its_tests() {
            let tested = [$(stringify!($name)),*];
            let rows: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
            assert_eq!(tested, rows.as_slice());
        }
    };
}

rows! {
    anon: native_anon_exact, native_anon_default;
    anon_whole: native_anon_whole_exact, native_anon_whole_default;
    fork_cow_at_peak: native_fork_cow_at_peak_exact, native_fork_cow_at_peak_default;
    fork_cow: native_fork_cow_exact, native_fork_cow_default;
    thp_whole: native_thp_whole_exact, native_thp_whole_default;
    thp_holes: native_thp_holes_exact, native_thp_holes_default;
    file_write: native_file_write_exact, native_file_write_default;
    file_truncate: native_file_truncate_exact, native_file_truncate_default;
    file_read: native_file_read_exact, native_file_read_default;
    tmpfs: native_tmpfs_exact, native_tmpfs_default;
    memfd: native_memfd_exact, native_memfd_default;
    shared_anon: native_shared_anon_exact, native_shared_anon_default;
    mremap: native_mremap_exact, native_mremap_default;
    mremap_end: native_mremap_end_exact, native_mremap_end_default;
    mlock: native_mlock_exact, native_mlock_default;
    mlock_end: native_mlock_end_exact, native_mlock_end_default;
    holes: native_holes_exact, native_holes_default;
    holes_end: native_holes_end_exact, native_holes_end_default;
    exit_without_free: native_exit_without_free_exact, native_exit_without_free_default;
    baseline: native_baseline_exact, native_baseline_default;
    baseline_file: native_baseline_file_exact, native_baseline_file_default;
    baseline_shmem: native_baseline_shmem_exact, native_baseline_shmem_default;
    recycle: native_recycle_exact, native_recycle_default;
    spawn_short: native_spawn_short_exact, native_spawn_short_default;
}
