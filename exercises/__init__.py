"""The exercises of the workbook and the grader that checks them."""
