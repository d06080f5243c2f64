//! The row in force at a place in a page. Both halves search by this code.

use super::SEARCH_STEPS;

/// The last of `count` rows from `first` on whose offset is not above `wanted`; the first one if all are. `row_at` gives a row by its number.
/// Without a branch, and with as many steps whatever is searched: a branch the verifier would follow both ways.
#[inline(always)]
pub fn find(mut row_at: impl FnMut(u64) -> u32, first: u64, count: u64, wanted: u64) -> u32 {
    let (mut low, mut rest) = (first, count);
    let mut step = 0;
    while step < SEARCH_STEPS {
        let half = rest >> 1;
        // All ones if the row in the middle is not above.
        let take = !((wanted.wrapping_sub(row_at(low + half) as u64 & 0xffff) as i64 >> 63) as u64);
        low += half & take;
        rest -= half;
        step += 1;
    }
    row_at(low)
}

#[cfg(test)]
mod tests {
    use super::find;
    use crate::unwind::MOST_PAGE_ROWS;

    #[test]
    fn the_last_row_that_is_not_above_is_found_in_any_number_of_rows() {
        let mut rows = [0_u32; MOST_PAGE_ROWS + 1];
        for count in (1..20).chain([85, 1023, 1024, 1025, MOST_PAGE_ROWS - 1, MOST_PAGE_ROWS]) {
            let distance = (MOST_PAGE_ROWS / count) as u32;
            for (n, row) in rows.iter_mut().enumerate() {
                // What stands behind the page's rows must not be taken for one of them.
                *row = if n >= 1 && n <= count { ((n as u32) << 16) | ((n as u32 - 1) * distance) } else { 0 };
            }
            let step = if count > 100 { 7 } else { 1 };
            for wanted in (0..4096_u64).step_by(step) {
                let expected = (wanted as u32 / distance).min(count as u32 - 1) + 1;
                assert_eq!(find(|n| rows[n as usize], 1, count as u64, wanted) >> 16, expected, "{wanted} of {count}");
            }
        }
    }

    #[test]
    fn a_place_before_the_first_row_has_the_first() {
        assert_eq!(find(|n| [0x7_0010, 0x8_0020][n as usize & 1], 0, 2, 5), 0x7_0010);
    }
}
