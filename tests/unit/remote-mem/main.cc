#define BOOST_TEST_MODULE remote_mem
#include <boost/test/unit_test.hpp>
