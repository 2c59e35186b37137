//! The lines on which the jobs of a file are.

/// Where the jobs are, kept by runs: most lines hold a job and follow the line of the job before.
#[derive(Debug, Default)]
pub(super) struct Lines {
    jobs: u64,
    /// The first job of each run, from 1, and its line.
    runs: Vec<(u64, u64)>,
}

impl Lines {
    /// Notes the line of the next job.
    pub(super) fn note(&mut self, line: u64) {
        self.jobs += 1;
        if self.runs.is_empty() || self.of(self.jobs) != line {
            self.runs.push((self.jobs, line));
        }
    }

    /// How many jobs there are.
    pub(super) fn jobs(&self) -> u64 {
        self.jobs
    }

    /// The line of a job, counted from 1.
    pub(super) fn of(&self, job: u64) -> u64 {
        let after = self.runs.partition_point(|(first, _)| *first <= job);
        let run = after.checked_sub(1).and_then(|index| self.runs.get(index));
        run.map_or(job, |(first, line)| line + (job - first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_found_on_its_line_behind_blank_and_faulty_ones() {
        let mut lines = Lines::default();
        let noted = [1, 2, 3, 5, 6, 9, 1_000_000];
        for line in noted {
            lines.note(line);
        }
        for (job, line) in (1..).zip(noted) {
            assert_eq!(lines.of(job), line);
        }
        assert_eq!((lines.jobs(), lines.runs.len()), (7, 4));
    }
}
