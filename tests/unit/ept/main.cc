#define BOOST_TEST_MODULE ept
#include <boost/test/unit_test.hpp>
