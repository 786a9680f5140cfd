#define BOOST_TEST_MODULE excache
#include <boost/test/unit_test.hpp>
