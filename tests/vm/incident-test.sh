#!/bin/bash
# shows: a test suite that would fill the machine has its bad test failed and nobody killed, and the shell answers all the time
# kernels: all
# seconds: 420
# machine: shared

. /payload/scenarios/lib.sh
. /payload/scenarios/incident/lib.sh

as_it_was
guarded_between_busy

expect_report incident verdict .verdict finished
expect 'exit code, which is that of pytest' "$code" 1
expect_report incident 'victims' '.victims | length' 0
expect_report incident 'the test' '.interventions[0].test.id' test_corpus.py::test_the_whole_corpus_is_indexed
expect_report incident 'the culprit' '.interventions[0].test.culprit.id' test_corpus.py::test_the_whole_corpus_is_indexed
expect 'how the suite ended' "$(grep -Eo '[0-9]+ failed, [0-9]+ passed' pytest.txt)" '1 failed, 24 passed'
expect_answers
